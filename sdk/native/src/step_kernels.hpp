// The inner loops of profile 4, by kind of processor. All forms give the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.hpp"
#include "percodec/steps.hpp"
#include "step_loops.hpp"

namespace percodec {

// What a plane's symbols look at, found once for a room.
struct StepContexts {
    StepContexts(const StepTables& tables, unsigned plane, const StepRoom& room, Kernel kernel) noexcept;

    // Of `count` symbols from `at` in their plane on: writes room.classes (of tails with room.must added: rows of the
    // tables) and, where has_place, room.places, each rounded up to whole vectors of 32.
    void block(StepRoom& room, std::size_t at, std::size_t count) const noexcept { block_(*this, room, at, count); }

    const StepTables::Plane& plane;
    std::ptrdiff_t width[kMaxWidth], place[kMaxPlace];  // from a symbol's place in its own plane to each neighbour
    bool tail, has_place;
    std::uint8_t constant;  // the place, where it has none

  private:
    void (*block_)(const StepContexts&, StepRoom&, std::size_t, std::size_t) noexcept;
};

// The tokens of a run, for a decoder.
struct StepTokens {
    const StepTables::Plane& plane;
    const std::uint8_t* rows;    // of the tables, by place in the plane
    const std::uint8_t* places;  // by place in the plane; null: `constant`
    std::uint8_t constant;
    const std::uint32_t* reached;  // places in the plane; null: `first` and the following
    std::size_t first, count;
    std::uint8_t* symbols;  // of the plane: the place + token - 7

    std::size_t at(std::size_t k) const noexcept { return reached ? reached[k] : first + k; }
    std::uint8_t place(std::size_t i) const noexcept { return places ? places[i] : constant; }
};

constexpr unsigned kEscape = kStepTokens - 1, kHalf = kStepHalf;

// Adds the number of tokens 15 to `escapes`. False where the words ended early.
bool step_tokens_plain(const StepTokens&, unsigned lanes, std::uint32_t* states, WordReader&,
                       std::size_t* escapes) noexcept;
void step_block_plain(const StepContexts&, StepRoom&, std::size_t at, std::size_t count) noexcept;

#if defined(__x86_64__)
// Codes `count` entries from their end, the k-th by lane k % lanes, a multiple of 8. Writes up to 16 bytes before the
// words, which are its own: four bytes for each of at least 8 lanes come before them.
std::uint8_t* step_encode_avx2(const StepTables::Plane& plane, const std::uint16_t* entries, std::size_t count,
                               unsigned lanes, std::uint32_t* states, std::uint8_t* next) noexcept;
bool step_tokens_avx2(const StepTokens&, unsigned lanes, std::uint32_t* states, WordReader&,
                      std::size_t* escapes) noexcept;
void step_block_avx2(const StepContexts&, StepRoom&, std::size_t at, std::size_t count) noexcept;
#endif

inline unsigned take_step(const StepTables::Plane& plane, unsigned row, std::uint32_t& x,
                          const std::uint8_t*& next) noexcept {
    const std::uint32_t slot = x & ((1u << kStepBits) - 1);
    const StepTables::Ends& ends = plane.ends[row];
    unsigned token = 0;
    for (unsigned k = 0; k < kStepTokens - 1; ++k) token += slot >= ends.slot[k] ? 1u : 0u;
    decode_step<kStepBits, kStepStateLow>(plane.found[row].frequency_start[token], slot, x, next);
    return token;
}

}  // namespace percodec
