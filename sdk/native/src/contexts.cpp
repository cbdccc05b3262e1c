#include "percodec/contexts.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

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
    : levels_(levels), contexts_(contexts) {
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

namespace {

// What one neighbour adds: table entries by symbol. `count` may be rounded up to kStep: the buffers have room for it.
constexpr std::size_t kStep = 64;

void add_plain(const std::uint8_t* symbols, std::size_t count, const std::int8_t* mean, const std::int8_t* spread,
               std::int8_t* means, std::int8_t* spreads) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
        means[i] = static_cast<std::int8_t>(means[i] + mean[symbols[i]]);
        spreads[i] = static_cast<std::int8_t>(spreads[i] + spread[symbols[i]]);
    }
}

#if defined(__x86_64__)
// Sixteen levels at most: a table fits a register, and a byte shuffle looks all of its bytes up at once.
__attribute__((target("avx2"))) void add_avx2(const std::uint8_t* symbols, std::size_t count, const std::int8_t* mean,
                                              const std::int8_t* spread, std::int8_t* means,
                                              std::int8_t* spreads) noexcept {
    const __m256i m = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(mean)));
    const __m256i s = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(spread)));
    for (std::size_t i = 0; i < count; i += 32) {
        const __m256i level = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols + i));
        auto* to_mean = reinterpret_cast<__m256i*>(means + i);
        auto* to_spread = reinterpret_cast<__m256i*>(spreads + i);
        _mm256_storeu_si256(to_mean, _mm256_add_epi8(_mm256_loadu_si256(to_mean), _mm256_shuffle_epi8(m, level)));
        _mm256_storeu_si256(to_spread, _mm256_add_epi8(_mm256_loadu_si256(to_spread), _mm256_shuffle_epi8(s, level)));
    }
}
#endif

using Add = void (*)(const std::uint8_t*, std::size_t, const std::int8_t*, const std::int8_t*, std::int8_t*,
                     std::int8_t*) noexcept;

Add choose_add(unsigned levels) noexcept {
#if defined(__x86_64__)
    if (levels <= 16 && __builtin_cpu_supports("avx2")) return add_avx2;
#else
    static_cast<void>(levels);
#endif
    return add_plain;
}

}  // namespace

void Contexts::block(const std::uint8_t* symbols, unsigned c, std::size_t y, std::size_t height, std::size_t width,
                     std::size_t begin, std::size_t count, std::uint8_t* out) const noexcept {
    const Channel& channel = channels_[c];
    const Add add = choose_add(levels_);
    std::int8_t mean[kBlock + kStep] = {}, spread[kBlock + kStep] = {};
    std::uint8_t line[kBlock + kStep] = {};
    for (const Neighbour& n : channel.neighbours) {
        const auto row = static_cast<std::ptrdiff_t>(y) + n.dy;
        const bool inside = row >= 0 && row < static_cast<std::ptrdiff_t>(height);
        // Columns [first, last) of the neighbour's row exist; around them is its channel's fill.
        const auto left = static_cast<std::ptrdiff_t>(begin) + n.dx;
        const auto first = std::clamp<std::ptrdiff_t>(-left, 0, static_cast<std::ptrdiff_t>(count));
        const auto last = std::clamp<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(width) - left, first, static_cast<std::ptrdiff_t>(count));
        std::memset(line, channels_[n.channel].fill, count);
        if (inside && last > first) {
            const std::uint8_t* from =
                symbols + (std::size_t{n.channel} * height + static_cast<std::size_t>(row)) * width + (left + first);
            std::memcpy(line + first, from, static_cast<std::size_t>(last - first));
        }
        add(line, count, n.mean, n.spread, mean, spread);
    }
    std::uint8_t bins[kBlock + kStep] = {};
    for (std::int8_t border : channel.mean_borders) {
        for (std::size_t i = 0; i < count; ++i) bins[i] = static_cast<std::uint8_t>(bins[i] + (mean[i] >= border ? kSpreadBins : 0));
    }
    for (std::int8_t border : channel.spread_borders) {
        for (std::size_t i = 0; i < count; ++i) bins[i] = static_cast<std::uint8_t>(bins[i] + (spread[i] >= border ? 1 : 0));
    }
    for (std::size_t i = 0; i < count; ++i) out[i] = channel.map[bins[i]];
}

}  // namespace percodec
