// Profile 3: the symbols at positions 2i and 2i + 1 of a channel are coded as one, with a probability of 14 bits: half
// of the steps, and what two neighbours have in common costs nothing. BITSTREAM.md, "Pairs", is the normative text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "percodec/kernel.hpp"
#include "percodec/rans.hpp"
#include "percodec/status.hpp"

namespace percodec {

constexpr unsigned kPairBits = 14;
constexpr std::uint32_t kPairScale = 1u << kPairBits;
constexpr std::uint32_t kPairStateLow = 1u << 16;  // states are in [2^16, 2^32)
constexpr unsigned kPairLevels = 8;                // of the largest alphabet
constexpr unsigned kPairs = kPairLevels * kPairLevels;

// Everything a coder looks up, made once from cumulative tables. Immutable. A pair is first * 8 + second here, whatever
// the number of levels; entries of pairs that cannot be repeat one that can.
class PairTables {
  public:
    struct alignas(64) Channel {
        std::uint16_t frequency[kPairs];
        std::uint16_t start[kPairs];
        std::uint16_t reciprocal_low[kPairs];  // of 2^32 / frequency
        std::uint16_t reciprocal_high[kPairs];
        std::uint32_t frequency_start[kPairs];  // frequency | start << 16
        std::uint16_t cost[kPairs];             // ideal code length in 1/256 bit
        // second[k][first], first[k]: slots at or above belong to second, first symbol k + 1 or higher.
        std::uint16_t second[kPairLevels][32];
        std::uint16_t first[kPairLevels];
        Tables::Encode encode[kPairs];
        std::uint8_t pair_of[kPairScale];  // of each slot
    };

    // cdf: uint16 [channels, levels * levels + 1], rows 0 = first < ... < last = 16384, entry levels * first + second.
    // Throws std::invalid_argument otherwise.
    PairTables(const std::uint16_t* cdf, unsigned channels, unsigned levels);

    unsigned channels() const noexcept { return static_cast<unsigned>(channels_.size()); }
    unsigned levels() const noexcept { return levels_; }
    const Channel& channel(unsigned index) const noexcept { return channels_[index]; }

  private:
    unsigned levels_;
    std::vector<Channel> channels_;
};

// lanes_for() the ideal length of symbols uint8 [channels, plane].
unsigned lanes_for_pairs(const PairTables&, const std::uint8_t* symbols, std::size_t plane, Kernel) noexcept;

// As those of rans.hpp; symbol_out_of_range where a symbol is no level.
Status encode_payload(const PairTables&, const std::uint8_t* symbols, std::size_t plane, unsigned lanes, Kernel,
                      std::uint8_t* begin, std::uint8_t* end, std::uint8_t** payload) noexcept;
Status decode_payload(const PairTables&, const std::uint8_t* payload, std::size_t size, std::size_t plane,
                      unsigned lanes, Kernel, std::uint8_t* symbols) noexcept;

}  // namespace percodec
