// The working memory of each thread that runs programs, and how it is given back.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

// Grows and is kept: a program's working memory is the same from call to call. One that was needed
// for a few large calls is given back after many small ones.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  ~Buffer() { std::free(data_); }

  char *at_least(int64_t bytes) {
    if (bytes > size_ || is_wasteful(bytes)) {
      release();
      size_ = (bytes + page - 1) / page * page;
      data_ = static_cast<char *>(
          std::aligned_alloc(static_cast<size_t>(page), static_cast<size_t>(size_)));
      if (data_)
        std::memset(data_, 0, static_cast<size_t>(size_));
      else
        size_ = 0;
    }
    return data_;
  }

  // Returns how many bytes that were.
  int64_t release() {
    const int64_t released = size_;
    std::free(data_);
    data_ = nullptr, size_ = 0, small_calls_ = 0;
    return released;
  }

 private:
  static constexpr int64_t page = 4096;
  static constexpr int64_t large = int64_t(32) << 20;
  static constexpr int many = 64;

  bool is_wasteful(int64_t bytes) {
    small_calls_ = size_ > large && bytes < size_ / 4 ? small_calls_ + 1 : 0;
    return small_calls_ > many;
  }

  char *data_ = nullptr;
  int64_t size_ = 0;
  int small_calls_ = 0;
};

// What one thread has. Any thread may release it while no program of its owner runs; of a thread
// that runs one it is released at the end of that.
class Workspace {
 public:
  Workspace() {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    registry().all.push_back(this);
  }
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;
  ~Workspace() {
    Registry &known = registry();
    const std::lock_guard<std::mutex> lock(known.mutex);
    for (size_t index = 0; index < known.all.size(); index++)
      if (known.all[index] == this) {
        known.all[index] = known.all.back();
        known.all.pop_back();
        break;
      }
  }

  // Within its lifetime the owner runs a program.
  class Use {
   public:
    explicit Use(Workspace &workspace) : workspace_(workspace) { workspace_.busy_.lock(); }
    Use(const Use &) = delete;
    Use &operator=(const Use &) = delete;
    ~Use() {
      if (workspace_.release_later_.exchange(false)) workspace_.release();
      workspace_.busy_.unlock();
    }

   private:
    Workspace &workspace_;
  };

  // Returns how many bytes were released at once.
  static int64_t release_all() {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    int64_t released = 0;
    for (Workspace *const workspace : registry().all) {
      workspace->release_later_ = true;
      if (!workspace->busy_.try_lock()) continue;
      if (workspace->release_later_.exchange(false)) released += workspace->release();
      workspace->busy_.unlock();
    }
    return released;
  }

  Buffer arena, scratch;

 private:
  struct Registry {
    std::mutex mutex;
    std::vector<Workspace *> all;
  };

  // Never destroyed: threads may end after the library's statics.
  static Registry &registry() {
    static Registry *const known = new Registry;
    return *known;
  }

  int64_t release() { return arena.release() + scratch.release(); }

  std::mutex busy_;
  std::atomic<bool> release_later_{false};
};
