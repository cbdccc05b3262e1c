// The inner loops, one pair per kernel. The payload's frame (lane states first) is rans.cpp's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "percodec/contexts.hpp"
#include "percodec/rans.hpp"

namespace percodec {

inline std::uint32_t load_word(const std::uint8_t* p) noexcept {
    return static_cast<std::uint32_t>(p[0]) | static_cast<std::uint32_t>(p[1]) << 8;
}

inline void store_word(std::uint8_t* p, std::uint32_t word) noexcept {
    p[0] = static_cast<std::uint8_t>(word);
    p[1] = static_cast<std::uint8_t>(word >> 8);
}

// The shared stream, read without a bounds check per symbol. ready() before each group of lanes guarantees that
// `group_bytes` may be read from `next`: near the end the stream moves to a zero-padded copy of its last bytes.
class WordReader {
  public:
    static constexpr std::size_t kMaxGroupBytes = 2 * kMaxLanes;

    // The words [begin, end), groups that read up to `group_bytes` (at most kMaxGroupBytes) from `next`.
    WordReader(const std::uint8_t* begin, const std::uint8_t* end, std::size_t group_bytes) noexcept
        : next(begin), end_(end), limit_(begin) {
        if (static_cast<std::size_t>(end - begin) >= group_bytes) {
            limit_ = end - group_bytes;
        } else {
            move_to_tail();
        }
    }
    WordReader(const WordReader&) = delete;
    WordReader& operator=(const WordReader&) = delete;

    // False when the stream ended before the previous group did.
    bool ready() noexcept {
        if (next <= limit_) return true;
        if (in_tail_) return false;
        move_to_tail();
        return true;
    }

    Status finish() const noexcept {
        const std::uint8_t* end = in_tail_ ? limit_ : end_;
        if (next == end) return Status::ok;
        return next > end ? Status::truncated_payload : Status::trailing_payload;
    }

    const std::uint8_t* next;

  private:
    // Invariant: in the tail, `next <= limit_` before a group, so that a group ends at most `group_bytes` beyond it.
    // Before the tail, `next <= end_ - group_bytes` held before the last group: `next <= end_` holds here.
    void move_to_tail() noexcept {
        const std::size_t left = static_cast<std::size_t>(end_ - next);
        std::memcpy(tail_, next, left);
        std::memset(tail_ + left, 0, sizeof(tail_) - left);
        next = tail_;
        limit_ = tail_ + left;
        in_tail_ = true;
    }

    const std::uint8_t* end_;
    const std::uint8_t* limit_;
    bool in_tail_ = false;
    std::uint8_t tail_[2 * kMaxGroupBytes];
};

// One symbol, on any processor.

inline std::uint32_t encode_symbol(const Tables::Encode& e, std::uint32_t x, std::uint8_t*& next) noexcept {
    // Stored always, kept only when the state is due: no branch to mispredict.
    const std::uint32_t due = x >= e.renorm_from ? 1u : 0u;
    store_word(next - 2, x);
    next -= 2 * due;
    x >>= 16 * due;
    const auto quotient = static_cast<std::uint32_t>(static_cast<unsigned __int128>(e.reciprocal) * x >> 64);
    return x + e.bias + quotient * e.complement;
}

// `stepped`: what a state became. It takes a word where it left the interval that begins at Low.
template <std::uint32_t Low>
inline void refill(std::uint32_t stepped, std::uint32_t& x, const std::uint8_t*& next) noexcept {
    const std::uint32_t refilled = stepped << 16 | load_word(next);
    const bool due = stepped < Low;
    x = due ? refilled : stepped;
    next += due ? 2 : 0;
}

// `found`: frequency | start << 16 of what `slot`, the lowest `Bits` bits of x, stands for.
template <unsigned Bits, std::uint32_t Low>
inline void decode_step(std::uint32_t found, std::uint32_t slot, std::uint32_t& x, const std::uint8_t*& next) noexcept {
    refill<Low>((found & 0xFFFF) * (x >> Bits) + slot - (found >> 16), x, next);
}

inline std::uint8_t decode_symbol(const std::uint32_t* slots, std::uint32_t& x, const std::uint8_t*& next) noexcept {
    const std::uint32_t entry = slots[x & (kProbabilityScale - 1)];
    const std::uint32_t stepped = (entry >> 20) * (x >> kPrecisionBits) + (entry >> 8 & (kProbabilityScale - 1));
    refill<kStateLow>(stepped, x, next);
    return static_cast<std::uint8_t>(entry);
}

inline bool kernel_allowed(Kernel wanted, Kernel kernel) noexcept {
    return (wanted == Kernel::automatic || wanted == kernel) && kernel_supported(kernel);
}

// Encoders go backwards: the last symbol first, words towards lower addresses. `states` holds kMaxLanes entries.
// Returns the first word written, or null when [begin, next) is too small.
using EncodeKernel = std::uint8_t* (*)(const Tables& tables, const std::uint8_t* symbols, std::size_t plane,
                                       unsigned lanes, std::uint32_t* states, std::uint8_t* begin,
                                       std::uint8_t* next) noexcept;

// False when the words ended early; `states` then hold nothing of use.
using DecodeKernel = bool (*)(const Tables& tables, std::size_t plane, unsigned lanes, std::uint32_t* states,
                              WordReader& words, std::uint8_t* symbols) noexcept;

// Profiles 1 and 2. Encoders are told the contexts, made beforehand: `rows` holds each symbol's, times `scale`; `rows *
// step` is context * levels. mark_contexts() writes up to 63 bytes past the last.
void mark_contexts(const Contexts&, const std::uint8_t* symbols, unsigned channels, std::size_t height,
                   std::size_t width, Kernel, unsigned scale, std::uint8_t* rows) noexcept;
unsigned lanes_for_contexts(const Tables&, unsigned contexts, const std::uint8_t* rows, unsigned step,
                            const std::uint8_t* symbols, unsigned channels, std::size_t plane, Kernel) noexcept;
std::uint8_t* encode_contexts(const Tables&, unsigned contexts, const std::uint8_t* rows, unsigned step,
                              const std::uint8_t* symbols, unsigned channels, std::size_t height, std::size_t width,
                              unsigned lanes, std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next) noexcept;
bool decode_contexts(const Tables&, const Contexts&, unsigned channels, std::size_t height, std::size_t width,
                     unsigned lanes, Kernel, std::uint32_t* states, WordReader& words, std::uint8_t* symbols) noexcept;

std::uint8_t* encode_scalar(const Tables&, const std::uint8_t*, std::size_t, unsigned, std::uint32_t*, std::uint8_t*,
                            std::uint8_t*) noexcept;
bool decode_scalar(const Tables&, std::size_t, unsigned, std::uint32_t*, WordReader&, std::uint8_t*) noexcept;

#if defined(__x86_64__)
// 8, 16, 32 or 64 lanes, tables with `wide`, rows times the number of levels.
std::uint8_t* encode_contexts_avx512(const Tables&, unsigned contexts, const std::uint8_t* rows,
                                     const std::uint8_t* symbols, unsigned channels, std::size_t height,
                                     std::size_t width, unsigned lanes, std::uint32_t* states, std::uint8_t* begin,
                                     std::uint8_t* next) noexcept;
bool decode_contexts_avx512(const Tables&, const Contexts&, unsigned channels, std::size_t height, std::size_t width,
                            unsigned lanes, std::uint32_t* states, WordReader& words, std::uint8_t* symbols) noexcept;
// What `count` symbols cost, in tables with `wide`.
std::uint32_t cost_avx512(const std::uint16_t* cost, const std::uint8_t* rows, const std::uint8_t* symbols,
                          std::size_t count) noexcept;

constexpr unsigned kAvx2Levels = 8;
constexpr unsigned kAvx2Lanes = 8;

// Alphabets of at most kAvx2Levels, multiples of kAvx2Lanes.
std::uint8_t* encode_avx2(const Tables&, const std::uint8_t*, std::size_t, unsigned, std::uint32_t*, std::uint8_t*,
                          std::uint8_t*) noexcept;
bool decode_avx2(const Tables&, std::size_t, unsigned, std::uint32_t*, WordReader&, std::uint8_t*) noexcept;

// Alphabets of at most kVectorLevels, 16 to 64 lanes.
std::uint8_t* encode_avx512(const Tables&, const std::uint8_t*, std::size_t, unsigned, std::uint32_t*, std::uint8_t*,
                            std::uint8_t*) noexcept;
bool decode_avx512(const Tables&, std::size_t, unsigned, std::uint32_t*, WordReader&, std::uint8_t*) noexcept;
#endif

#if defined(__aarch64__)
constexpr unsigned kNeonLevels = 8;
constexpr unsigned kNeonLanes = 4;

// Alphabets of at most kNeonLevels, multiples of kNeonLanes.
std::uint8_t* encode_neon(const Tables&, const std::uint8_t*, std::size_t, unsigned, std::uint32_t*, std::uint8_t*,
                          std::uint8_t*) noexcept;
bool decode_neon(const Tables&, std::size_t, unsigned, std::uint32_t*, WordReader&, std::uint8_t*) noexcept;
#endif

}  // namespace percodec
