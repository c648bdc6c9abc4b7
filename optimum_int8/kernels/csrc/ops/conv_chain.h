// CONVs one after another of which each thread has the same pixels: it computes some hundred pixels
// of all of them, then the next. What one writes the next reads from L2, and nobody waits in
// between.
#pragma once

namespace OI8_NAMESPACE {

constexpr int most_chained = 4;
constexpr int64_t chained_bytes =
    600 << 10;  // of the pixels that are computed at a time, of all values

// Bytes that a value occupies.
struct Place {
  const char *begin, *end;
  Place(const Context &context, int index)
      : begin(context.value<char>(index)),
        end(begin + int64_t(context.program->values[index].rows) * context.row_bytes(index)) {}
  bool overlaps(const Place &other) const { return begin < other.end && other.begin < end; }
};

inline bool may_chain(const oi8_instruction &instruction, const Context &context) {
  if (instruction.op != OI8_CONV || instruction.window->depthwise || instruction.input[1] >= 0 ||
      !conv_divides_pixels(instruction, context.threads))
    return false;
  if constexpr (Tile::winograd) return !takes_winograd<Tile>(instruction, context.threads);
  return true;
}

// Whether `next` may follow `before` and those between: it reads no other pixels of their results
// than its own, and writes where none of them, still at work on later pixels, reads or writes.
inline bool chains(const oi8_instruction *before, const oi8_instruction *next,
                   const Context &context) {
  if (!may_chain(*next, context) || conv_pixels(*next) != conv_pixels(*before)) return false;
  for (const oi8_instruction *instruction = before; instruction < next; instruction++)
    for (const int out : next->output) {
      if (out < 0) continue;
      for (const int index : {instruction->input[0], instruction->input[3], instruction->output[0],
                              instruction->output[1]})
        if (index >= 0 && Place(context, out).overlaps(Place(context, index))) return false;
    }
  if (conv_in_place(*next->window)) return true;
  for (const oi8_instruction *instruction = before; instruction < next; instruction++)
    for (const int out : instruction->output)
      if (out >= 0 && out == next->input[0]) return false;
  return true;
}

// How many instructions from `first` on are computed together.
inline int chain_length(const oi8_instruction *first, const Context &context) {
  const oi8_instruction *const end =
      context.program->instructions + context.program->instruction_count;
  int length = 1;
  if (!may_chain(*first, context)) return length;
  while (length < most_chained && first + length < end && chains(first, first + length, context))
    length++;
  return length;
}

inline void conv_chain(const oi8_instruction *first, int length, const Context &context) {
  int64_t row_bytes = 0;
  for (int i = 0; i < length; i++)
    for (const int index :
         {first[i].input[0], first[i].input[3], first[i].output[0], first[i].output[1]})
      if (index >= 0) row_bytes += context.row_bytes(index);
  const Range mine = conv_share(conv_pixels(*first), context);
  const int64_t parts = ((mine.end - mine.begin) * row_bytes + chained_bytes - 1) / chained_bytes,
                blocks = (mine.end - mine.begin + Tile::rows - 1) / Tile::rows;
  for (int64_t part = 0; part < parts; part++) {
    const Range some = share_of(blocks, part, parts);
    const int64_t end = mine.begin + some.end * Tile::rows;
    for (int i = 0; i < length; i++)
      conv_some_pixels(conv_arguments(first[i], context), context,
                       {mine.begin + some.begin * Tile::rows, end < mine.end ? end : mine.end});
  }
}

}  // namespace OI8_NAMESPACE
