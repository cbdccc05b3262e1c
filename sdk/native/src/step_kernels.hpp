// The inner loops of profile 4, by kind of processor. All forms give the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.hpp"
#include "percodec/steps.hpp"
#include "step_loops.hpp"

namespace percodec {

using StepPart = StepRoom::Part;

// Where an encoder's run goes on: its entries, and of those that are escapes how far their symbols are from their
// places.
struct StepDraft {
    std::uint16_t* entries;
    std::uint8_t* escapes;
};

// What a plane's symbols look at, found once for a room. Parts count from `base` on.
struct StepContexts {
    StepContexts(const StepTables& tables, unsigned plane, const StepRoom& room, Kernel kernel) noexcept;

    // Writes room.classes (of tails with room.must added: rows of the tables) and, where has_place, room.places, of
    // whole parts.
    void find(StepRoom& room, std::size_t base, const StepPart* parts, std::size_t count) const noexcept {
        find_(*this, room, base, parts, count);
    }
    // The same of symbols that are known: writes what is coded, and room.must as it is after them. May write kStepSlack
    // entries more.
    void draft(StepRoom& room, std::size_t base, const StepPart* parts, std::size_t count,
               StepDraft& draft) const noexcept {
        draft_(*this, room, base, parts, count, draft);
    }

    const StepTables::Plane& plane;
    const std::size_t first;                            // of the plane, in room.symbols and room.values
    std::ptrdiff_t width[kMaxWidth], place[kMaxPlace];  // from a plane's place 0 to each neighbour of it, in the room
    bool tail, has_place;
    std::uint8_t constant;  // the place, where it has none; an extent's, so that it is its token

  private:
    void (*find_)(const StepContexts&, StepRoom&, std::size_t, const StepPart*, std::size_t) noexcept;
    void (*draft_)(const StepContexts&, StepRoom&, std::size_t, const StepPart*, std::size_t, StepDraft&) noexcept;
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
void step_find_plain(const StepContexts&, StepRoom&, std::size_t base, const StepPart*, std::size_t count) noexcept;
void step_draft_plain(const StepContexts&, StepRoom&, std::size_t base, const StepPart*, std::size_t count,
                      StepDraft&) noexcept;

#if defined(__x86_64__)
// Codes `count` entries from their end, the k-th by lane k % lanes, a multiple of 8. Writes up to 16 bytes before the
// words, which are its own: four bytes for each of at least 8 lanes come before them.
std::uint8_t* step_encode_avx2(const StepTables::Plane& plane, const std::uint16_t* entries, std::size_t count,
                               unsigned lanes, std::uint32_t* states, std::uint8_t* next) noexcept;
bool step_tokens_avx2(const StepTokens&, unsigned lanes, std::uint32_t* states, WordReader&,
                      std::size_t* escapes) noexcept;
void step_find_avx2(const StepContexts&, StepRoom&, std::size_t base, const StepPart*, std::size_t count) noexcept;
void step_draft_avx2(const StepContexts&, StepRoom&, std::size_t base, const StepPart*, std::size_t count,
                     StepDraft&) noexcept;
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
