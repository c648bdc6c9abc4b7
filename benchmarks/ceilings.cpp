// What this machine can do at most: INT8 multiply-adds from registers, and reading memory. Prints one line of JSON.
//
//     ceilings ISA THREADS BYTES...      ISA: amx, avx512_vnni, avx2; BYTES: working sets to read again and again
//
// Instructions are written as assembly, so that no compiler flag decides what is measured. Best of several repetitions:
// a ceiling is what the machine reaches when nothing disturbs it.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr double kSeconds = 0.05;  // of one repetition
constexpr int kRepetitions = 7;

// A step is `ops` operations on `threads` threads; calls it often enough to last kSeconds, returns operations per second.
template <class Begin, class Step, class End>
double best_rate(int threads, double ops, Begin begin, Step step, End end) {
    double best = 0;
    long count = 16;
    for (int repetition = 0; repetition < kRepetitions;) {
        auto start = Clock::now();
#pragma omp parallel num_threads(threads)
        {
            begin();
            for (long i = 0; i < count; i++) step();
            end();
        }
        double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        if (seconds < kSeconds) {
            count *= 2;
            continue;
        }
        double rate = ops * threads * count / seconds;
        if (rate > best) best = rate;
        repetition++;
    }
    return best;
}

struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t columns[16] = {};
    uint8_t rows[16] = {};
};

double amx_rate(int threads) {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return 0;
    TileConfig config;
    for (int i = 0; i < 8; i++) config.columns[i] = 64, config.rows[i] = 16;
    auto begin = [&] { asm volatile("ldtilecfg %0" ::"m"(config)); };
    auto step = [] {
        for (int i = 0; i < 64; i++)
            asm volatile("tdpbusd %tmm6, %tmm4, %tmm0\n tdpbusd %tmm7, %tmm4, %tmm1\n"
                         "tdpbusd %tmm6, %tmm5, %tmm2\n tdpbusd %tmm7, %tmm5, %tmm3");
    };
    auto end = [] { asm volatile("tilerelease"); };
    return best_rate(threads, 64.0 * 4 * 16 * 16 * 64 * 2, begin, step, end);
}

void nothing() {}

double avx512_vnni_rate(int threads) {
    auto step = [] {
        for (int i = 0; i < 64; i++)
            asm volatile("vpdpbusd %zmm8, %zmm9, %zmm0\n vpdpbusd %zmm8, %zmm9, %zmm1\n vpdpbusd %zmm8, %zmm9, %zmm2\n"
                         "vpdpbusd %zmm8, %zmm9, %zmm3\n vpdpbusd %zmm8, %zmm9, %zmm4\n vpdpbusd %zmm8, %zmm9, %zmm5\n"
                         "vpdpbusd %zmm8, %zmm9, %zmm6\n vpdpbusd %zmm8, %zmm9, %zmm7");
    };
    return best_rate(threads, 64.0 * 8 * 64 * 2, nothing, step, nothing);
}

// Without VNNI: two vpmaddubsw, whose sums of pairs are added in int16 where weights are clamped for it, then vpmaddwd and vpaddd: five
// instructions for 64 multiply-adds.
double avx2_rate(int threads) {
    auto step = [] {
        for (int i = 0; i < 64; i++)
            asm volatile("vpmaddubsw %ymm8, %ymm9, %ymm10\n vpmaddubsw %ymm8, %ymm9, %ymm14\n vpaddw %ymm14, %ymm10, %ymm10\n"
                         "vpmaddwd %ymm8, %ymm10, %ymm10\n vpaddd %ymm10, %ymm0, %ymm0\n"
                         "vpmaddubsw %ymm8, %ymm9, %ymm11\n vpmaddubsw %ymm8, %ymm9, %ymm15\n vpaddw %ymm15, %ymm11, %ymm11\n"
                         "vpmaddwd %ymm8, %ymm11, %ymm11\n vpaddd %ymm11, %ymm1, %ymm1\n"
                         "vpmaddubsw %ymm8, %ymm9, %ymm12\n vpmaddubsw %ymm8, %ymm9, %ymm14\n vpaddw %ymm14, %ymm12, %ymm12\n"
                         "vpmaddwd %ymm8, %ymm12, %ymm12\n vpaddd %ymm12, %ymm2, %ymm2\n"
                         "vpmaddubsw %ymm8, %ymm9, %ymm13\n vpmaddubsw %ymm8, %ymm9, %ymm15\n vpaddw %ymm15, %ymm13, %ymm13\n"
                         "vpmaddwd %ymm8, %ymm13, %ymm13\n vpaddd %ymm13, %ymm3, %ymm3");
    };
    return best_rate(threads, 64.0 * 4 * 64 * 2, nothing, step, nothing);
}

// Every thread reads its own share of the working set.
double read_rate(int threads, size_t bytes) {
    size_t share = (bytes / threads + 255) / 256 * 256;
    std::vector<char*> blocks(threads);
#pragma omp parallel num_threads(threads)
    {
        char* block = static_cast<char*>(aligned_alloc(4096, (share + 4095) / 4096 * 4096));
        memset(block, 1, share);
        blocks[omp_get_thread_num()] = block;
    }
    auto step = [&] {
        const char* p = blocks[omp_get_thread_num()];
        for (const char* end = p + share; p < end; p += 256)
            asm volatile("vmovdqa (%0), %%ymm0\n vmovdqa 32(%0), %%ymm1\n vmovdqa 64(%0), %%ymm2\n"
                         "vmovdqa 96(%0), %%ymm3\n vmovdqa 128(%0), %%ymm4\n vmovdqa 160(%0), %%ymm5\n"
                         "vmovdqa 192(%0), %%ymm6\n vmovdqa 224(%0), %%ymm7" ::"r"(p) : "memory");
    };
    double rate = best_rate(threads, static_cast<double>(share), nothing, step, nothing);
    for (char* block : blocks) free(block);
    return rate;
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 3) return 2;
    const char* isa = arguments[1];
    int threads = atoi(arguments[2]);
    double rate = strcmp(isa, "amx") == 0           ? amx_rate(threads)
                  : strcmp(isa, "avx512_vnni") == 0 ? avx512_vnni_rate(threads)
                  : strcmp(isa, "avx2") == 0        ? avx2_rate(threads)
                                                    : 0;
    if (threads < 1 || rate == 0) return 3;
    printf("{\"int8_ops\": %.4g, \"read_bytes\": {", rate);
    for (int i = 3; i < count; i++)
        printf("%s\"%s\": %.4g", i > 3 ? ", " : "", arguments[i], read_rate(threads, strtoull(arguments[i], nullptr, 10)));
    printf("}}\n");
    return 0;
}
