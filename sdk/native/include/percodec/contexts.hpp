// Contexts: which row of the tables codes a symbol. BITSTREAM.md, "Contexts", is the normative text.
//
// A context is made of symbols that are known before the row it belongs to: earlier channels, earlier rows of the same
// channel. Each neighbour adds one byte of a small table to each of two sums; the sums' bins select the context.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace percodec {

constexpr unsigned kMaxContexts = 10;
constexpr unsigned kMaxNeighbours = 32;
constexpr int kMaxReach = 2;
constexpr unsigned kMeanBins = 12, kSpreadBins = 5;

class Contexts {
  public:
    // `data`: the contexts of an entropy model, exactly. Throws std::invalid_argument for anything a decoder could not
    // follow: a neighbour that is not known by then, sums that leave a byte, borders that fall, a context that is none.
    Contexts(const std::uint8_t* data, std::size_t size, unsigned channels, unsigned levels, unsigned contexts);

    unsigned contexts() const noexcept { return contexts_; }

    // The contexts of `count` symbols, at most kBlock, of row `y` of `channel` from column `begin` on. Reads symbols
    // [channels, height, width] of earlier channels and rows only; any byte at or above `levels` counts as the highest level.
    static constexpr std::size_t kBlock = 256;
    void block(const std::uint8_t* symbols, unsigned channel, std::size_t y, std::size_t height, std::size_t width,
               std::size_t begin, std::size_t count, std::uint8_t* out) const noexcept;

  private:
    struct Neighbour {
        unsigned channel;
        int dy, dx;
        std::int8_t mean[256], spread[256];  // of every byte: no index needs a check
    };
    struct Channel {
        std::vector<Neighbour> neighbours;
        std::int8_t mean_borders[kMeanBins - 1], spread_borders[kSpreadBins - 1];
        std::uint8_t map[kMeanBins * kSpreadBins];
        std::uint8_t fill;
    };

    unsigned levels_;
    unsigned contexts_;
    std::vector<Channel> channels_;
};

}  // namespace percodec
