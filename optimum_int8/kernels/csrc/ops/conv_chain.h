// Consecutive CONVs of which each thread owns the same pixels: it computes some hundred pixels of
// all of them, then the next ones. What one writes the next reads from L2, and no thread waits in
// between. Results are those of the instructions one by one.
#pragma once
#include <initializer_list>

#include "conv.h"
#include "operator.h"

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

// Instructions of a program from one on. Of a convolution they are `conv(i)`.
struct Sequence {
  const oi8_instruction *const *first;
  const oi8_conv &conv(int i) const { return parameters_of<oi8_conv>(*first[i]); }
};

inline bool may_chain(const oi8_instruction &instruction, const Context &context) {
  if (instruction.op != OI8_CONV || instruction.input[OI8_CONV_SCALE] >= 0) return false;
  const oi8_conv &conv = parameters_of<oi8_conv>(instruction);
  if (conv.depthwise || !conv_divides_pixels(conv, context.threads)) return false;
  if constexpr (Tile::winograd) return !takes_winograd<Tile>(conv, context.threads);
  return true;
}

// Whether instruction `next` may follow those before it: it reads no other pixels of their results
// than its own, and writes where none of them, still at work on later pixels, reads or writes.
inline bool chains(Sequence sequence, int next, const Context &context) {
  const oi8_instruction &added = *sequence.first[next];
  if (!may_chain(added, context)) return false;
  const oi8_conv &conv = sequence.conv(next);
  if (conv_pixels(conv) != conv_pixels(sequence.conv(0))) return false;
  for (int i = 0; i < next; i++) {
    const oi8_instruction &before = *sequence.first[i];
    for (const int out : added.output) {
      if (out < 0) continue;
      for (const int index : {before.input[OI8_CONV_IMAGE], before.input[OI8_CONV_RESIDUAL],
                              before.output[OI8_CONV_FLOATS], before.output[OI8_CONV_BYTES]})
        if (index >= 0 && Place(context, out).overlaps(Place(context, index))) return false;
    }
  }
  if (conv_in_place(conv.window)) return true;
  for (int i = 0; i < next; i++)
    for (const int out : sequence.first[i]->output)
      if (out >= 0 && out == added.input[OI8_CONV_IMAGE]) return false;
  return true;
}

// How many instructions from the context's on are computed together.
inline int chain_length(const Context &context) {
  const Sequence sequence = {context.program->instructions + context.position};
  const int left = context.program->instruction_count - context.position;
  int length = 1;
  if (!may_chain(*sequence.first[0], context)) return length;
  while (length < most_chained && length < left && chains(sequence, length, context)) length++;
  return length;
}

inline void conv_chain(int length, const Context &context) {
  const Sequence sequence = {context.program->instructions + context.position};
  int64_t row_bytes = 0;
  for (int i = 0; i < length; i++) {
    const oi8_instruction &instruction = *sequence.first[i];
    for (const int index :
         {instruction.input[OI8_CONV_IMAGE], instruction.input[OI8_CONV_RESIDUAL],
          instruction.output[OI8_CONV_FLOATS], instruction.output[OI8_CONV_BYTES]})
      if (index >= 0) row_bytes += context.row_bytes(index);
  }
  const Range mine = conv_share(conv_pixels(sequence.conv(0)), context);
  const int64_t parts = ((mine.end - mine.begin) * row_bytes + chained_bytes - 1) / chained_bytes,
                blocks = (mine.end - mine.begin + Tile::rows - 1) / Tile::rows;
  for (int64_t part = 0; part < parts; part++) {
    const Range some = share_of(blocks, part, parts);
    const int64_t end = mine.begin + some.end * Tile::rows;
    for (int i = 0; i < length; i++)
      conv_some_pixels(conv_arguments(sequence.conv(i), context), context,
                       {mine.begin + some.begin * Tile::rows, end < mine.end ? end : mine.end});
  }
}

}  // namespace OI8_NAMESPACE
