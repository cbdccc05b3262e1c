// Contexts: which row of the tables codes a symbol. BITSTREAM.md, "Contexts", is the normative text.
//
// A context is made of symbols that are known before the row it belongs to: earlier channels, earlier rows of the same
// channel. Each neighbour adds one byte of a small table to each of two sums, bytes that wrap; the sums' bins select
// the context.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "percodec/kernel.hpp"

namespace percodec {

constexpr unsigned kMaxContexts = 16;
constexpr unsigned kMaxNeighbours = 32;
constexpr int kMaxReach = 2;
constexpr unsigned kMeanBins = 12, kSpreadBins = 5;

class Contexts {
  public:
    // `data`: the contexts of an entropy model, exactly. Throws std::invalid_argument for anything a decoder could not
    // follow: a neighbour that is not known by then, borders that fall, a context that is none.
    // `temporal`: neighbours may lie in the latent before (channels C .. 2C - 1), and symbols are [2C, height, width]:
    // that one first.
    Contexts(const std::uint8_t* data, std::size_t size, unsigned channels, unsigned levels, unsigned contexts,
             bool temporal = false);

    unsigned contexts() const noexcept { return contexts_; }

    struct alignas(64) Neighbour {
        std::uint8_t fill[64];               // where there is no such symbol, as often as a vector wants it
        std::int8_t mean[256], spread[256];  // of every byte: no index needs a check
        unsigned channel;
        int dy, dx;
    };
    // What two neighbours add together, by level of the one + 8 * level of the other.
    struct alignas(64) Pair {
        std::int8_t mean[64], spread[64];
    };
    struct alignas(64) Channel {
        std::uint8_t mean_bin[256];  // of every sum (as an unsigned byte), times kSpreadBins
        std::uint8_t map[64];
        std::int8_t mean_borders[kMeanBins - 1], spread_borders[kSpreadBins - 1];
        std::uint8_t fill;
        std::vector<Neighbour> neighbours;
        std::vector<Pair> pairs;  // of neighbours 0 and 1, 2 and 3, ...; none where levels do not fit
    };

    const Channel& channel(unsigned c) const noexcept { return channels_[c]; }
    unsigned channels() const noexcept { return static_cast<unsigned>(channels_.size()); }
    unsigned levels() const noexcept { return levels_; }
    bool temporal() const noexcept { return temporal_; }

  private:
    unsigned levels_;
    unsigned contexts_;
    bool temporal_;
    std::vector<Channel> channels_;
};

// The contexts of one channel of a latent, each times `scale`, row by row. `symbols` points to the latent itself,
// behind the one before it where there is one. Uses symbols [channels, height, width] of earlier channels and rows
// only; bytes that are no level are safe, but their contexts are unspecified.
class ContextRows {
  public:
    static constexpr std::size_t kBlock = 256;
    static constexpr unsigned kLines = 4;

    ContextRows(const Contexts& contexts, unsigned channel, const std::uint8_t* symbols, std::size_t height,
                std::size_t width, Kernel kernel, unsigned scale) noexcept;

    // Of `count` symbols, at most kBlock, of row `y` from column `begin` on. `out` has room for `count`, rounded up to
    // a multiple of 64.
    void block(std::size_t y, std::size_t begin, std::size_t count, std::uint8_t* out) const noexcept {
        block_(*this, y, begin, count, out);
    }

    // Of whole rows from `y` on, as many as this processor likes to do at once, where the channel's own symbols are all
    // there. Returns how many; writes up to 63 bytes past the last.
    std::size_t lines(std::size_t y, std::uint8_t* out) const noexcept;

    const Contexts::Channel& channel;
    const std::uint8_t* const symbols;  // of this channel
    const std::size_t height, width;
    std::ptrdiff_t first, end;                                 // of all symbols there are, from this channel's first
    std::ptrdiff_t offset[kMaxNeighbours];                     // from a symbol to each neighbour
    std::uint8_t down[kMaxNeighbours], right[kMaxNeighbours];  // dy and dx, plus kMaxReach
    alignas(64) std::uint8_t map[64];                          // of the channel, times `scale`

  private:
    void (*block_)(const ContextRows&, std::size_t, std::size_t, std::size_t, std::uint8_t*) noexcept;
    void (*lines_)(const ContextRows&, std::size_t, std::uint8_t*) noexcept;  // kLines inner rows; null: one by one
};

}  // namespace percodec
