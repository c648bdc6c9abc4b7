// ATTENTION: softmax(Q K^T * scaling + mask) V on uint8 queries, keys and values with zero point
// 128, probabilities uint8.
//
// Accumulator: int32, exact, in both products; the softmax in float32, in the order of numerics.
// Any head size, length and mask; K of the products (head size, number of keys) up to
// numerics.MAX_REDUCTION. A task is a key head of one sequence with the heads of queries that share
// it; each thread owns a share of the tasks, and packs their keys and values into panels in its
// scratch, so that both products are those of the linear's tile.
#pragma once
#include <cstring>

#include "attention_pack.h"
#include "linear.h"

namespace OI8_NAMESPACE {

constexpr int FEW_QUERIES =
    4;  // of all heads that share a key head: fewer do not pay for panels of the keys

struct AttentionScratch {
  int8_t *keys, *values;           // panels
  int32_t *key_sum;                // times the queries' zero point
  float *scores;                   // [32][keys]
  uint8_t *probabilities;          // [32][keys]
  float *key_scale, *value_scale;  // dynamic
  char *prepared;                  // 32 rows of either product

  static int64_t bytes(int64_t length, int64_t head) {
    const int64_t padded_length = up_to_step(length), padded_head = up_to_step(head);
    return 2 * padded_length * padded_head + padded_length * 4 + 32 * padded_length * 4 +
           32 * padded_length + 2 * padded_length * 4 +
           Tile::prepared_bytes(
               static_cast<int>((padded_length > padded_head ? padded_length : padded_head) / 64)) +
           64;
  }
  AttentionScratch(char *base, int64_t length, int64_t head) {
    const int64_t padded_length = up_to_step(length), padded_head = up_to_step(head);
    keys = reinterpret_cast<int8_t *>(base);
    values = keys + padded_length * padded_head;
    key_sum = reinterpret_cast<int32_t *>(values + padded_length * padded_head);
    scores = reinterpret_cast<float *>(key_sum + padded_length);
    key_scale = scores + 32 * padded_length;
    value_scale = key_scale + padded_length;
    probabilities = reinterpret_cast<uint8_t *>(value_scale + padded_length);
    prepared = reinterpret_cast<char *>(probabilities + 32 * padded_length);
  }
};

struct HeadTask {
  const uint8_t *query_rows;
  const uint8_t *key_rows;  // where keys are read as they lie, else null: they are in panels
  int64_t k_stride;
  int64_t q_stride;
  const float *q_scale;  // dynamic: of each query row, at q_scale[r * q_scale_stride]
  int64_t q_scale_stride;
  float scaling;  // log2(e) times the scaling of scores, times the scales of queries and keys when
                  // static
  float value_scale;  // static
  int head, length, keys, kept;
  bool dynamic, causal;
  const uint8_t *bool_mask;
  const float *float_mask;
  int64_t mask_stride;

  // Keys that this query sees, counted from the front.
  int64_t reach(int64_t query) const {
    const int64_t last = query + keys - length + 1;
    return causal && last < kept ? last : kept;
  }
};

// Sums of one query as scores without a mask, in powers of two.
inline Floats score(const AttentionScratch &scratch, const int32_t *sums, int key, Floats factor) {
  return mul(to_float(sub(load(sums + key), load(scratch.key_sum + key))), factor);
}

// Integer scores of one query to uint8 probabilities; returns what one unit of the second product
// is worth. One factor for all keys and no mask: the largest sum is the largest score, and nothing
// has to be kept.
inline float plain_softmax(const HeadTask &task, const AttentionScratch &scratch, int visible,
                           const int32_t *sums, uint8_t *probabilities) {
  Floats top = set(-1e30f), total = set(0.0f);
  by_16(visible, [&](int key, auto count) {
    top = max(keep(count, to_float(sub(load(sums + key), load(scratch.key_sum + key))), top), top);
  });
  const Floats factor = set(task.scaling), peak = set(largest(top) * task.scaling);
  const auto level = [&](int key, auto count) {
    const Floats weight =
        keep(count, softmax_weight(sub(score(scratch, sums, key, factor), peak)), set(0.0f));
    total = add(total, weight);
    return to_int(weight);
  };
  const Whole whole;
  const int whole_steps = visible / 64 * 64;
  for (int key = 0; key < whole_steps; key += 64) {
    const Ints first = level(key, whole), second = level(key + 16, whole),
               third = level(key + 32, whole), fourth = level(key + 48, whole);
    store_bytes(probabilities + key, first, second, third, fourth);
  }
  by_16(visible - whole_steps, [&](int key, auto count) {
    store_bytes(probabilities + whole_steps + key, level(whole_steps + key, count));
  });
  return task.value_scale / sum(total);
}

// The same with masks, or with the scale of each query, key and value; works in place.
inline float masked_softmax(const HeadTask &task, const AttentionScratch &scratch, int visible,
                            int64_t query, float *scores, uint8_t *probabilities) {
  const int32_t *sums = reinterpret_cast<const int32_t *>(scores);
  const Floats masked = set(-1e30f),
               factor = set(task.dynamic ? task.q_scale[query * task.q_scale_stride] * task.scaling
                                         : task.scaling);
  Floats top = masked;
  by_16(visible, [&](int key, auto count) {
    Floats scaled = score(scratch, sums, key,
                          task.dynamic ? mul(factor, load(scratch.key_scale + key)) : factor);
    if (task.bool_mask)
      scaled = select(task.bool_mask + query * task.mask_stride + key, count, scaled, masked);
    if (task.float_mask)
      scaled =
          add(scaled,
              max(mul(load(task.float_mask + query * task.mask_stride + key, count), set(LOG2E)),
                  masked));
    store(scores + key, scaled);
    top = max(keep(count, scaled, top), top);
  });
  const Floats peak = set(largest(top));
  Floats total = set(0.0f), heaviest = set(0.0f);
  by_16(visible, [&](int key, auto count) {
    const Floats weight = keep(count, softmax_weight(sub(load(scores + key), peak)), set(0.0f));
    total = add(total, weight);
    if (task.dynamic) {
      const Floats weighted = mul(weight, load(scratch.value_scale + key));
      heaviest = max(weighted, heaviest);
      store(scores + key, weighted);
    } else {
      store_bytes(probabilities + key, to_int(weight));
    }
  });
  if (!task.dynamic) return task.value_scale / sum(total);
  const float most = largest(heaviest);
  const Floats to_levels = set(255.0f / most);
  for (int key = 0; key < visible; key += 16)
    store_bytes(probabilities + key, to_int(mul(load(scores + key), to_levels)));
  return (most * (1.0f / 255.0f)) / sum(total);
}

inline float softmax_row(const HeadTask &task, const AttentionScratch &scratch, int64_t query,
                         float *scores, uint8_t *probabilities) {
  const int visible = static_cast<int>(task.reach(query));
  const bool plain = !task.dynamic && !task.bool_mask && !task.float_mask && task.scaling > 0.0f;
  const float unit = plain ? plain_softmax(task, scratch, visible,
                                           reinterpret_cast<const int32_t *>(scores), probabilities)
                           : masked_softmax(task, scratch, visible, query, scores, probabilities);
  const int64_t written = (visible + (half_columns - 1)) / half_columns * half_columns;
  if (written < up_to_step(task.keys))
    std::memset(probabilities + written, 0, up_to_step(task.keys) - written);
  return unit;
}

// The first `count` of 16 results to element `column` of a line.
inline void write_16(char *line, int64_t column, int count, Floats values, bool to_bytes,
                     const Quantization &quantization) {
  if (to_bytes) {
    uint8_t *out = reinterpret_cast<uint8_t *>(line) + column;
    count >= 16 ? store_bytes(out, quantization(values))
                : store_bytes(out, quantization(values), count);
  } else {
    float *out = reinterpret_cast<float *>(line) + column;
    count >= 16 ? store(out, values) : store(out, values, count);
  }
}

// Where the results of a head go.
struct HeadResults {
  const Context &context;
  int value;
  int64_t first_row;
  int column;
  bool to_bytes;
  Quantization quantization;

  char *line(int64_t row) const {
    return context.row<char>(value, first_row + row) + column * (to_bytes ? 1 : 4);
  }
  // The first `count` of 32 results, from column `first` on.
  inline void write(char *line, int first, int count, Floats values, Floats more) const {
    if (to_bytes && count >= 32)
      return quantization.store(reinterpret_cast<uint8_t *>(line) + first, values, more);
    write_16(line, first, count, values, to_bytes, quantization);
    if (count > 16) write_16(line, first + 16, count - 16, more, to_bytes, quantization);
  }
};

inline void attend(const HeadTask &task, const AttentionScratch &scratch,
                   const HeadResults &results, Prefetch &prefetch) {
  const int64_t width = up_to_step(task.keys);
  const int key_steps = steps_of(task.head);
  Prefetch nothing;
  alignas(64) int32_t sums[Tile::rows * panel_columns];
  int32_t *scores = reinterpret_cast<int32_t *>(scratch.scores);
  for (int64_t query = 0; query < task.length; query += Tile::rows) {
    const int rows =
        static_cast<int>(task.length - query < Tile::rows ? task.length - query : Tile::rows);
    const int64_t reach = task.reach(query + rows - 1);
    if (task.key_rows) {
      for (int row = 0; row < rows; row++)
        score_one(task.query_rows + (query + row) * task.q_stride, task.key_rows, task.k_stride,
                  static_cast<int>(reach), task.head, scores + row * width);
    } else {
      const typename Tile::Rows queries =
          Tile::prepare(task.query_rows + query * task.q_stride, task.q_stride, rows, task.head,
                        scratch.prepared);
      for (int64_t key = 0; key < reach; key += 32)
        Tile::block(queries, rows, scratch.keys + key / panel_columns * key_steps * step_bytes,
                    key_steps, scores + key, width, nothing, [](int) {});
    }
    float unit[Tile::rows];
    char *line[Tile::rows];
    for (int row = 0; row < rows; row++) {
      unit[row] = softmax_row(task, scratch, query + row, scratch.scores + row * width,
                              scratch.probabilities + row * width);
      line[row] = results.line(query + row);
      if (prefetch.next < prefetch.end) prefetch.fetch(prefetch.lines);
    }
    const int value_steps = static_cast<int>(up_to_step(reach) / step_inputs);
    const typename Tile::Rows probabilities = Tile::prepare(
        scratch.probabilities, width, rows, static_cast<int>(reach), scratch.prepared);
    for (int column = 0; column < task.head; column += 32) {
      const int8_t *panel =
          scratch.values + column / panel_columns * (width / step_inputs) * step_bytes;
      alignas(64) int32_t value_sum[32] = {};
      if (Tile::offset) Tile::column_sums(panel, static_cast<int>(reach), value_sum);
      Tile::block(probabilities, rows, panel, value_steps, sums, 32, nothing, [](int) {});
      const Ints correction0 = mul(load(value_sum), set_int(Tile::offset)),
                 correction1 = mul(load(value_sum + 16), set_int(Tile::offset));
      for (int row = 0; row < rows; row++) {
        const Floats low = mul(to_float(add(load(sums + row * panel_columns), correction0)),
                               set(unit[row])),
                     high = mul(to_float(add(load(sums + row * panel_columns + 16), correction1)),
                                set(unit[row]));
        results.write(line[row], column, task.head - column, low, high);
      }
    }
  }
}

// Keys that some query of this sequence sees, counted from the front: padding at the end costs
// nothing.
inline int kept_keys(const oi8_keys &keys, int64_t batch) {
  if (keys.mask_kind != OI8_BOOL_MASK || keys.mask_stride[2] != 0 || keys.mask_stride[1] != 0)
    return keys.length;
  const uint8_t *mask = static_cast<const uint8_t *>(keys.mask) + batch * keys.mask_stride[0];
  int count = keys.length;
  while (count > 0 && !mask[count - 1]) count--;
  return count > 0 ? count : keys.length;
}

// First row of the keys of a sequence in an array of the caller.
inline int64_t kept_row(const oi8_keys &keys, int64_t sequence) {
  return sequence / (keys.shared ? keys.shared : 1) * (keys.rows ? keys.rows : keys.length);
}

inline void attention(const oi8_attention &instruction, const Context &context) {
  const oi8_call &call = *context.call;
  const oi8_keys &given = context.keys(instruction.head);
  const bool skipping =
      context.memory->kept;  // then every token that is left is seen by every other
  const int heads = instruction.heads, head = instruction.columns / heads,
            group = heads / instruction.key_heads;
  const bool dynamic = instruction.head.input[OI8_ATTENTION_QUERY_SCALES] >= 0,
             to_bytes = instruction.output_scale > 0;
  const Quantization quantization(to_bytes ? instruction.output_scale : 1.0f,
                                  instruction.output_zero_point);
  const AttentionScratch scratch(context.scratch, given.length, head);
  const Range mine = context.share(context.batch * instruction.key_heads);
  Prefetch prefetch = prefetch_of(next_linear(context, 512 << 10), (mine.end - mine.begin) * group,
                                  call.length);  // it reads little memory itself
  for (int64_t task = mine.begin; task < mine.end; task++) {
    const int64_t batch = task / instruction.key_heads, key_head = task % instruction.key_heads,
                  first_row = context.begin(batch);
    const int length = static_cast<int>(context.begin(batch + 1) - first_row),
              keys = skipping ? length : given.length;
    const bool outside = context.is_external(instruction.head.input[OI8_ATTENTION_KEYS]);
    const int64_t first_key = skipping  ? first_row
                              : outside ? kept_row(given, batch)
                                        : batch * keys;
    const uint8_t *key_rows =
        context.row<uint8_t>(instruction.head.input[OI8_ATTENTION_KEYS], first_key) +
        instruction.column[1] + key_head * head;
    const bool few = length * group <= FEW_QUERIES;
    if (few)
      std::memset(scratch.key_sum, 0, up_to_step(keys) * sizeof(int32_t));
    else
      pack_keys(key_rows, context.row_bytes(instruction.head.input[OI8_ATTENTION_KEYS]), keys, head,
                scratch.keys, scratch.key_sum);
    pack_values(context.row<uint8_t>(instruction.head.input[OI8_ATTENTION_VALUES], first_key) +
                    instruction.column[2] + key_head * head,
                context.row_bytes(instruction.head.input[OI8_ATTENTION_VALUES]), keys, head,
                scratch.values);
    for (int key = 0; dynamic && key < keys; key++) {
      scratch.key_scale[key] =
          context.row<float>(instruction.head.input[OI8_ATTENTION_KEY_SCALES],
                             first_key + key)[instruction.scale_column[1] + key_head];
      scratch.value_scale[key] =
          context.row<float>(instruction.head.input[OI8_ATTENTION_VALUE_SCALES],
                             first_key + key)[instruction.scale_column[2] + key_head];
    }
    for (int64_t head_index = key_head * group; head_index < (key_head + 1) * group; head_index++) {
      HeadTask head_task = {};
      head_task.query_rows =
          context.row<uint8_t>(instruction.head.input[OI8_ATTENTION_QUERIES], first_row) +
          instruction.column[0] + head_index * head;
      head_task.q_stride = context.row_bytes(instruction.head.input[OI8_ATTENTION_QUERIES]);
      if (few)
        head_task.key_rows = key_rows,
        head_task.k_stride = context.row_bytes(instruction.head.input[OI8_ATTENTION_KEYS]);
      head_task.head = head, head_task.length = length, head_task.keys = keys,
      head_task.kept = skipping ? keys : kept_keys(given, context.first_batch + batch),
      head_task.dynamic = dynamic, head_task.causal = instruction.causal;
      const float scaling = instruction.scaling * LOG2E;
      head_task.scaling =
          dynamic ? scaling : (instruction.input_scale[0] * scaling) * instruction.input_scale[1];
      if (dynamic)
        head_task.q_scale =
            context.row<float>(instruction.head.input[OI8_ATTENTION_QUERY_SCALES], first_row) +
            instruction.scale_column[0] + head_index,
        head_task.q_scale_stride =
            context.row_bytes(instruction.head.input[OI8_ATTENTION_QUERY_SCALES]) / 4;
      head_task.value_scale = instruction.input_scale[2];
      const int64_t mask_at =
          (context.first_batch + batch) * given.mask_stride[0] + head_index * given.mask_stride[1];
      if (given.mask_kind == OI8_BOOL_MASK && !skipping)
        head_task.bool_mask = static_cast<const uint8_t *>(given.mask) + mask_at;
      if (given.mask_kind == OI8_FLOAT_MASK)
        head_task.float_mask = static_cast<const float *>(given.mask) + mask_at;
      head_task.mask_stride = given.mask_stride[2];
      attend(head_task, scratch,
             {context, instruction.head.output[OI8_ATTENTION_RESULT], first_row,
              static_cast<int>(head_index) * head, to_bytes, quantization},
             prefetch);
    }
  }
}

inline int64_t attention_scratch(const oi8_attention &instruction, const oi8_call &call) {
  return AttentionScratch::bytes(keys_of(call, instruction.head).length,
                                 instruction.columns / instruction.heads);
}

}  // namespace OI8_NAMESPACE
