// The inner loops of profile 3, as kernels.hpp has them for profile 0. `highest`: of the symbols that take steps; where
// it is no level, what was written is of no use.
#pragma once

#include "kernels.hpp"
#include "percodec/pairs.hpp"

namespace percodec {

// How many symbols of a channel take steps: all of the first `whole` channels, `last` of the next. The others are
// elsewhere.
struct PairSteps {
    std::size_t plane, last;
    unsigned whole;
    std::size_t of(unsigned channel) const noexcept { return channel < whole ? plane : channel == whole ? last : 0; }
    std::size_t all() const noexcept { return whole * plane + last; }
};

inline unsigned pair_at(const std::uint8_t* symbols, std::size_t pair) noexcept {
    return (symbols[2 * pair] * kPairLevels + symbols[2 * pair + 1]) % kPairs;
}

// The last pair of an odd plane has its second symbol outside: it is coded as 0.
inline unsigned half_pair(std::uint8_t first) noexcept {
    return first * kPairLevels % kPairs;
}

inline std::uint8_t highest_of(const std::uint8_t* symbols, std::size_t size) noexcept {
    std::uint8_t highest = 0;
    for (std::size_t i = 0; i < size; ++i) highest = symbols[i] > highest ? symbols[i] : highest;
    return highest;
}

inline unsigned decode_pair(const PairTables::Channel& channel, std::uint32_t& x, const std::uint8_t*& next) noexcept {
    const std::uint32_t slot = x % kPairScale;
    const unsigned pair = channel.pair_of[slot];
    decode_step<kPairBits, kPairStateLow>(channel.frequency_start[pair], slot, x, next);
    return pair;
}

using EncodePairs = std::uint8_t* (*)(const PairTables& tables, const std::uint8_t* symbols, const PairSteps& steps,
                                      unsigned lanes, std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next,
                                      std::uint8_t* highest) noexcept;
using DecodePairs = bool (*)(const PairTables& tables, const PairSteps& steps, unsigned lanes, std::uint32_t* states,
                             WordReader& words, std::uint8_t* symbols) noexcept;

struct PairKernels {
    EncodePairs encode;
    DecodePairs decode;
};

// The fastest that is wanted and that this processor has, for 1..64 lanes.
PairKernels pair_kernels(unsigned lanes, unsigned levels, Kernel wanted) noexcept;

// How far a decoder's kernel reads ahead: vectors are whole registers.
constexpr std::size_t pair_group_bytes(unsigned lanes) noexcept {
    return (2 * std::size_t{lanes} + 63) / 64 * 64;
}

#if defined(__x86_64__)
constexpr short kSlotMask = kPairScale - 1;
constexpr short kFirstTimes8 = 0x0108;  // of two neighbours: first * 8 + second * 1

// 16 to 64 lanes.
std::uint8_t* encode_pairs_avx512(const PairTables&, const std::uint8_t*, const PairSteps&, unsigned, std::uint32_t*,
                                  std::uint8_t*, std::uint8_t*, std::uint8_t*) noexcept;
bool decode_pairs_avx512(const PairTables&, const PairSteps&, unsigned, std::uint32_t*, WordReader&,
                         std::uint8_t*) noexcept;
#endif

#if defined(__x86_64__) || defined(__aarch64__)
#define PERCODEC_PLANES
// AVX2 or NEON, for 16, 32 and 64 lanes; null otherwise.
PairKernels pairs_in_planes(unsigned lanes, unsigned levels) noexcept;
// What `groups` of 32 symbols cost.
std::uint64_t cost_pairs_planes(const PairTables::Channel&, const std::uint8_t* symbols, std::size_t groups,
                                unsigned levels) noexcept;
#endif

}  // namespace percodec
