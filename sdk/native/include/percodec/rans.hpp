// Range asymmetric numeral systems over per-channel tables: symbols <-> payload bytes.
//
// State 32 bits wide, kept in [2^15, 2^31); renormalised 16 bits at a time; probabilities of 12 bits; 1..64 lanes
// interleaved over one shared stream of 16-bit words. Symbol p of a channel (raster order) belongs to lane p mod lanes;
// every channel begins again at lane 0. BITSTREAM.md is the normative text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "percodec/kernel.hpp"
#include "percodec/status.hpp"

namespace percodec {

constexpr unsigned kPrecisionBits = 12;
constexpr std::uint32_t kProbabilityScale = 1u << kPrecisionBits;
constexpr unsigned kMaxLanes = 64;
constexpr std::uint32_t kStateLow = 1u << 15;  // every lane starts encoding, and ends decoding, at this value
constexpr unsigned kMinLevels = 2;
constexpr unsigned kMaxLevels = 256;
constexpr unsigned kMaxChannels = 1024;
constexpr std::size_t kMaxSymbols = std::size_t{1} << 27;  // of one latent
constexpr unsigned kSearchedLevels = 8;                    // with contexts, alphabets up to this size need no slots
constexpr unsigned kVectorLevels = 16;                     // alphabets up to this size have vector kernels
constexpr unsigned kWideEntries = 96;                      // contexts * levels up to this have vector kernels

// Everything a coder looks up, made once from cumulative tables. Immutable.
class Tables {
  public:
    // x -> x / frequency * 4096 + x % frequency + start, without a division. Valid for every state x:
    // quotient = high 64 bits of x * reciprocal; result = x + bias + quotient * complement.
    struct Encode {
        std::uint64_t reciprocal;
        std::uint32_t renorm_from;  // at this state and above, 16 bits leave first
        std::uint16_t bias;
        std::uint16_t complement;  // 4096 - frequency
    };

    // One channel for kernels that hold the whole alphabet in registers. Unused levels are unreachable.
    struct alignas(64) Vector {
        std::uint32_t reciprocal[kVectorLevels];  // quotient = x * reciprocal >> 32 >> shift, exact for x < 2^31
        std::uint32_t shift[kVectorLevels];
        std::uint32_t bias[kVectorLevels];
        std::uint32_t complement[kVectorLevels];
        std::uint32_t threshold[kVectorLevels];  // threshold[k]: slots at or above belong to level k + 1 or higher
        std::uint32_t frequency_start[kVectorLevels];  // frequency | start << 16
        std::uint16_t frequency[2 * kVectorLevels];
        std::uint16_t start[2 * kVectorLevels];
        float inverse[kVectorLevels];  // 1 / frequency, rounded down
    };

    // All contexts of one channel, for kernels that hold them in registers.
    struct alignas(64) Wide {
        std::uint32_t reciprocal[kWideEntries];  // [context * levels + level]
        std::uint32_t packed[kWideEntries];      // complement | bias << 12 | shift << 25
        std::uint32_t frequency_start[8][16];    // [level][context]
        std::uint32_t threshold[8][16];          // [k][context]
    };

    // cdf: uint16 [channels, levels + 1], rows 0 = first < ... < last = 4096. Throws std::invalid_argument otherwise.
    // With contexts a "channel" is one of them: row channel * contexts + context.
    Tables(const std::uint16_t* cdf, unsigned channels, unsigned levels, unsigned contexts = 0);

    unsigned channels() const noexcept { return channels_; }
    unsigned levels() const noexcept { return levels_; }

    // Rows of a power-of-two number of entries: masking a symbol with encode_mask() keeps any byte inside its row. With
    // contexts rows have levels() entries, one after the other, and any byte may be looked up in any row.
    const Encode* encode(unsigned channel) const noexcept {
        return encode_.data() + std::size_t{channel} * encode_stride_;
    }
    unsigned encode_mask() const noexcept { return encode_mask_; }

    // 4096 entries: level | (slot - start) << 8 | frequency << 20. With contexts only above kSearchedLevels.
    const std::uint32_t* decode(unsigned channel) const noexcept {
        return decode_.data() + std::size_t{channel} * kProbabilityScale;
    }

    // Null when the alphabet is larger than kVectorLevels.
    const Vector* vector(unsigned channel) const noexcept {
        return vector_.empty() ? nullptr : vector_.data() + channel;
    }

    // Null without contexts, or where they have more than 64 levels together. `channel` counts channels, not rows.
    const Wide* wide(unsigned channel) const noexcept { return wide_.empty() ? nullptr : wide_.data() + channel; }

    // Ideal code length of each level in 1/256 bit, by integer arithmetic. Any byte may be looked up in any row.
    const std::uint16_t* cost(unsigned channel) const noexcept { return cost_.data() + std::size_t{channel} * levels_; }

  private:
    unsigned channels_;
    unsigned levels_;
    unsigned encode_mask_;
    unsigned encode_stride_;
    std::vector<Encode> encode_;
    std::vector<std::uint32_t> decode_;
    std::vector<Vector> vector_;
    std::vector<Wide> wide_;
    std::vector<std::uint16_t> cost_;
};

// What lanes' final states may cost of a payload, in 1/1024: with contexts more, for their kernels need more lanes to
// be as fast, and in profile 4 less.
constexpr unsigned kPlainLanes = 9, kContextLanes = 12, kStepLanes = 6;

// Lanes whose final states cost at most 4 bytes plus `share` of a payload of `ideal_bytes`: a power of two in 1..64.
// Never fewer for a longer payload.
unsigned lanes_for(std::uint64_t ideal_bytes, unsigned share = kPlainLanes) noexcept;

// True when every symbol is a level. `lanes` (may be null) receives lanes_for() the symbols' ideal length, in bits
// rounded up and then in bytes rounded down.
bool measure(const Tables& tables, const std::uint8_t* symbols, std::size_t plane, unsigned* lanes) noexcept;

// Bytes that no payload of `symbols` symbols exceeds.
constexpr std::size_t payload_bound(std::size_t symbols, unsigned lanes = kMaxLanes) noexcept {
    return 4 * std::size_t{lanes} + 2 * symbols;
}

// Codes symbols uint8 [channels, plane], all below levels, into the end of [begin, end); the payload is [*payload,
// end). Writes nowhere else. no_space when the buffer is too small; payload_bound() bytes always suffice.
Status encode_payload(const Tables& tables, const std::uint8_t* symbols, std::size_t plane, unsigned lanes,
                      Kernel kernel, std::uint8_t* begin, std::uint8_t* end, std::uint8_t** payload) noexcept;

// Fills symbols uint8 [channels, plane] from exactly `size` bytes. Any bytes are safe: nothing outside the two buffers
// is touched, nothing is allocated, and the work is channels * plane steps at most. On an error `symbols` is
// unspecified.
Status decode_payload(const Tables& tables, const std::uint8_t* payload, std::size_t size, std::size_t plane,
                      unsigned lanes, Kernel kernel, std::uint8_t* symbols) noexcept;

class Contexts;

// Profiles 1 and 2: the same with contexts, symbols uint8 [channels, height, width], in profile 2 behind the latent
// before; every row begins at lane 0. `tables` are made with as many contexts. With `*lanes` 0 they are chosen for the
// content. Wants payload_bound() bytes between begin and end, whatever the content, and uses them as scratch.
// symbol_out_of_range where a symbol is no level.
Status encode_payload(const Tables& tables, const Contexts& contexts, const std::uint8_t* symbols, unsigned channels,
                      std::size_t height, std::size_t width, unsigned* lanes, Kernel kernel, std::uint8_t* begin,
                      std::uint8_t* end, std::uint8_t** payload) noexcept;
Status decode_payload(const Tables& tables, const Contexts& contexts, const std::uint8_t* payload, std::size_t size,
                      unsigned channels, std::size_t height, std::size_t width, unsigned lanes, Kernel kernel,
                      std::uint8_t* symbols) noexcept;

}  // namespace percodec
