// Profiles 4 and 5: latents of uniform steps. A symbol is coded as what it differs from its place, by a table that
// neighbours' values choose; most channels only where the extents reach them. In profile 5 neighbours may lie in the
// latent before, and symbols are [2C, height, width]: that one first. BITSTREAM.md, "Steps", is the normative text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "percodec/kernel.hpp"
#include "percodec/rans.hpp"
#include "percodec/status.hpp"

namespace percodec {

constexpr unsigned kStepBits = 14;
constexpr std::uint32_t kStepStateLow = 1u << 16;  // states are in [2^16, 2^32)
constexpr unsigned kStepClasses = 16, kStepTokens = 16, kStepHalf = 7;
constexpr unsigned kStepPart = 32;     // symbols whose contexts are found together
constexpr std::size_t kStepSlack = 8;  // elements that may be written beyond the last
constexpr unsigned kMaxBands = 15, kMaxWidth = 16, kMaxPlace = 8;

// Everything a coder looks up, made once from the bytes of an entropy model. Immutable.
class StepTables {
  public:
    struct Near {
        unsigned plane;
        int dy, dx, weight;
    };
    // Rows of the tables, sixteen tokens each. Apart, for a coder wants one of them at a time in its first cache.
    struct alignas(32) Ends {
        std::uint16_t slot[kStepTokens];  // of each token, the first that is above it
    };
    struct alignas(64) Found {
        std::uint32_t frequency_start[kStepTokens];  // frequency | start << 16
    };
    // What a division needs, in one load.
    struct Divide {
        std::uint32_t reciprocal;  // 2^32 / frequency, rounded down; of 1 one less
        std::uint32_t frequency_start;
    };
    // A channel, or the extents: the last plane, where there are bands.
    struct Plane {
        unsigned levels;
        std::uint8_t offset;
        unsigned shift;
        int bias;
        std::vector<Near> width, place;
        std::uint8_t borders[kStepClasses - 1];
        // For a search in four steps, of what the borders before found: the border in the middle of what is left, less
        // 128.
        alignas(16) std::uint8_t middle[4][kStepClasses];
        unsigned digits;  // the first of two rows, behind those of tokens: 16, of tails 32
        std::vector<Ends> ends;
        std::vector<Found> found;
        std::vector<Tables::Encode> encode;  // row * 16 + token
        std::vector<Divide> divide;          // the same
        std::vector<std::uint16_t> cost;     // the same, ideal code length in 1/256 bit
    };

    // `data`: behind the fixed header of an entropy model. Throws std::invalid_argument for anything a decoder could
    // not follow exactly.
    StepTables(const std::uint8_t* data, std::size_t size, unsigned channels, unsigned levels, bool temporal);

    unsigned channels() const noexcept { return channels_; }
    unsigned heads() const noexcept { return heads_; }
    unsigned planes() const noexcept { return static_cast<unsigned>(planes_.size()); }
    bool temporal() const noexcept { return temporal_; }
    // Of the latent before, where there is one: its channel 0 as a neighbour's plane.
    unsigned before() const noexcept { return channels_ + 1; }
    const Plane& plane(unsigned index) const noexcept { return planes_[index]; }
    // First channels of the bands, and C behind the last.
    const std::vector<unsigned>& bands() const noexcept { return bands_; }

  private:
    unsigned channels_, heads_;
    bool temporal_;
    std::vector<unsigned> bands_;
    std::vector<Plane> planes_;
};

// Room to work for one call. Planes have a margin of one symbol around, and rows room for whole vectors.
struct StepRoom {
    StepRoom(const StepTables& tables, std::size_t height, std::size_t width);

    struct Run {
        unsigned plane;
        std::uint32_t tokens, digits;
    };

    // Thirty-two symbols of a plane, in one row, of which those in `mask` are coded: the k-th where bit k is set.
    struct Part {
        std::uint32_t at, mask;
    };

    std::size_t height, width, stride, size;  // of a plane, in bytes
    std::vector<std::uint8_t> symbols;        // all planes, those of the latent before behind them
    std::vector<std::uint8_t> values;         // |symbol - offset|, all planes
    std::vector<std::uint8_t> classes, places;
    std::vector<std::uint8_t> must;            // 16 where something of the band must still come, else 0
    std::vector<Part> line;                    // of a row, all of it, from its first symbol on
    std::vector<Part> parts;                   // where the extents reach the present band
    std::vector<std::uint32_t> reached;        // a decoder's: the same, symbol by symbol
    std::vector<Run> runs;                     // an encoder's, in the order of decoding
    std::unique_ptr<std::uint16_t[]> entries;  // an encoder's: row * 16 + what is coded by it
    std::vector<std::uint8_t> escapes;         // an encoder's: how far a run's escapes are from their places

    std::size_t at(std::size_t y, std::size_t x) const noexcept { return (y + 1) * stride + x + 1; }
};

// Rooms of one shape, as many as there were calls at a time. Nobody waits for the lock, for in a child of a process
// whose other threads code it may be held for good: such a call makes a room of its own.
class StepRooms {
  public:
    StepRooms(StepTables tables, std::size_t height, std::size_t width);

    // Null where there is no memory for another one.
    std::unique_ptr<StepRoom> take() noexcept;
    void give(std::unique_ptr<StepRoom> room) noexcept;

    const StepTables tables;
    const std::size_t height, width;

  private:
    std::mutex lock_;
    std::vector<std::unique_ptr<StepRoom>> idle_;
};

// Bytes that no payload exceeds: each symbol takes three steps at most, each extent one.
constexpr std::size_t step_payload_bound(std::size_t symbols, std::size_t plane) noexcept {
    return 4 * std::size_t{kMaxLanes} + 2 * (3 * symbols + plane);
}

// As those of rans.hpp; `symbols` uint8 [channels, height, width], in profile 5 behind the latent before. With `*lanes`
// 0 they are chosen for the content. symbol_out_of_range where a symbol is no level of its channel, no_space where
// memory is short.
Status encode_payload(StepRooms&, const std::uint8_t* symbols, unsigned* lanes, Kernel, std::uint8_t* begin,
                      std::uint8_t* end, std::uint8_t** payload) noexcept;
Status decode_payload(StepRooms&, const std::uint8_t* payload, std::size_t size, unsigned lanes, Kernel,
                      std::uint8_t* symbols) noexcept;

}  // namespace percodec
