// The inner loops of profile 3, as kernels.hpp has them for profile 0. `last`: how many symbols of the last channel
// take part, the others are elsewhere. `highest`: of the symbols that do; where it is no level, what was written is of
// no use.
#pragma once

#include "kernels.hpp"
#include "percodec/pairs.hpp"

namespace percodec {

using EncodePairs = std::uint8_t* (*)(const PairTables& tables, const std::uint8_t* symbols, std::size_t plane,
                                      std::size_t last, unsigned lanes, std::uint32_t* states, std::uint8_t* begin,
                                      std::uint8_t* next, std::uint8_t* highest) noexcept;
using DecodePairs = bool (*)(const PairTables& tables, std::size_t plane, std::size_t last, unsigned lanes,
                             std::uint32_t* states, WordReader& words, std::uint8_t* symbols) noexcept;

#if defined(__x86_64__)
// Any lanes.
std::uint8_t* encode_pairs_avx512(const PairTables&, const std::uint8_t*, std::size_t, std::size_t, unsigned,
                                  std::uint32_t*, std::uint8_t*, std::uint8_t*, std::uint8_t*) noexcept;
bool decode_pairs_avx512(const PairTables&, std::size_t, std::size_t, unsigned, std::uint32_t*, WordReader&,
                         std::uint8_t*) noexcept;

// 64 lanes, where wide_supported().
std::uint8_t* encode_pairs_wide(const PairTables&, const std::uint8_t*, std::size_t, std::size_t, unsigned,
                                std::uint32_t*, std::uint8_t*, std::uint8_t*, std::uint8_t*) noexcept;
bool decode_pairs_wide(const PairTables&, std::size_t, std::size_t, unsigned, std::uint32_t*, WordReader&,
                       std::uint8_t*) noexcept;

// What the pairs of a channel cost.
std::uint64_t cost_pairs_avx512(const PairTables::Channel&, const std::uint8_t* symbols, std::size_t plane) noexcept;
#endif

}  // namespace percodec
