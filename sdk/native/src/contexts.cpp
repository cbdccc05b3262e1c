#include "percodec/contexts.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace percodec {
namespace {

// Bytes that are there, or an error.
class Reader {
  public:
    Reader(const std::uint8_t* data, std::size_t size) : next_(data), left_(size) {}
    const std::uint8_t* take(std::size_t bytes) {
        if (bytes > left_) throw std::invalid_argument("the contexts end too early");
        const std::uint8_t* found = next_;
        next_ += bytes;
        left_ -= bytes;
        return found;
    }
    std::size_t left() const { return left_; }

  private:
    const std::uint8_t* next_;
    std::size_t left_;
};

int magnitude(const std::int8_t* table, unsigned levels) {
    int largest = 0;
    for (unsigned k = 0; k < levels; ++k) largest = std::max(largest, std::abs(static_cast<int>(table[k])));
    return largest;
}

void fill_table(std::int8_t* table, const std::uint8_t* from, unsigned levels) {
    std::memcpy(table, from, levels);
    for (unsigned k = levels; k < 256; ++k) table[k] = table[levels - 1];
}

void read_borders(Reader& reader, std::int8_t* borders, unsigned count) {
    std::memcpy(borders, reader.take(count), count);
    for (unsigned k = 1; k < count; ++k) {
        if (borders[k] < borders[k - 1]) throw std::invalid_argument("borders of a context fall");
    }
}

}  // namespace

Contexts::Contexts(const std::uint8_t* data, std::size_t size, unsigned channels, unsigned levels, unsigned contexts)
    : contexts_(contexts) {
    if (contexts < 1 || contexts > kMaxContexts) throw std::invalid_argument("contexts must be 1..10");
    Reader reader(data, size);
    std::vector<std::uint8_t> fills;
    for (unsigned c = 0; c < channels; ++c) {
        Channel channel;
        const std::uint8_t* head = reader.take(2);
        channel.fill = head[1];
        if (head[0] > kMaxNeighbours || channel.fill >= levels) throw std::invalid_argument("too many neighbours, or no such fill");
        int mean = 0, spread = 0;
        for (unsigned k = 0; k < head[0]; ++k) {
            const std::uint8_t* p = reader.take(4);
            Neighbour n;
            n.channel = static_cast<unsigned>(p[0] | p[1] << 8);
            n.dy = static_cast<std::int8_t>(p[2]);
            n.dx = static_cast<std::int8_t>(p[3]);
            const bool known = n.channel < c || (n.channel == c && n.dy < 0);
            if (!known || std::abs(n.dy) > kMaxReach || std::abs(n.dx) > kMaxReach) {
                throw std::invalid_argument("channel " + std::to_string(c) + " has a neighbour that is not known by then and near");
            }
            fill_table(n.mean, reader.take(levels), levels);
            fill_table(n.spread, reader.take(levels), levels);
            mean += magnitude(n.mean, levels);
            spread += magnitude(n.spread, levels);
            channel.neighbours.push_back(n);
        }
        if (mean > 127 || spread > 127) throw std::invalid_argument("sums of a context leave a byte");
        read_borders(reader, channel.mean_borders, kMeanBins - 1);
        read_borders(reader, channel.spread_borders, kSpreadBins - 1);
        std::memcpy(channel.map, reader.take(sizeof(channel.map)), sizeof(channel.map));
        for (std::uint8_t context : channel.map) {
            if (context >= contexts) throw std::invalid_argument("a bin leads to no context");
        }
        channels_.push_back(std::move(channel));
    }
    if (reader.left()) throw std::invalid_argument("bytes follow the contexts");
}

void Contexts::block(const std::uint8_t* symbols, unsigned c, std::size_t y, std::size_t height, std::size_t width,
                     std::size_t begin, std::size_t count, std::uint8_t* out) const noexcept {
    const Channel& channel = channels_[c];
    std::int8_t mean[kBlock] = {}, spread[kBlock] = {};
    for (const Neighbour& n : channel.neighbours) {
        const std::uint8_t fill = channels_[n.channel].fill;
        const auto row = static_cast<std::ptrdiff_t>(y) + n.dy;
        const bool inside = row >= 0 && row < static_cast<std::ptrdiff_t>(height);
        const std::uint8_t* line =
            symbols + (std::size_t{n.channel} * height + (inside ? static_cast<std::size_t>(row) : 0)) * width;
        for (std::size_t i = 0; i < count; ++i) {
            const auto x = static_cast<std::ptrdiff_t>(begin + i) + n.dx;
            const std::uint8_t symbol = inside && x >= 0 && x < static_cast<std::ptrdiff_t>(width) ? line[x] : fill;
            mean[i] = static_cast<std::int8_t>(mean[i] + n.mean[symbol]);
            spread[i] = static_cast<std::int8_t>(spread[i] + n.spread[symbol]);
        }
    }
    for (std::size_t i = 0; i < count; ++i) {
        unsigned m = 0, s = 0;
        for (std::int8_t border : channel.mean_borders) m += mean[i] >= border ? 1u : 0u;
        for (std::int8_t border : channel.spread_borders) s += spread[i] >= border ? 1u : 0u;
        out[i] = channel.map[m * kSpreadBins + s];
    }
}

}  // namespace percodec
