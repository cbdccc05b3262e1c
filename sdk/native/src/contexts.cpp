#include "percodec/contexts.hpp"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "byte_reader.hpp"
#include "context_kernels.hpp"
#include "kernels.hpp"

namespace percodec {
namespace {

// A missing second neighbour adds nothing.
void pair_up(Contexts::Channel& channel) {
    for (std::size_t k = 0; k < channel.neighbours.size(); k += 2) {
        const Contexts::Neighbour& one = channel.neighbours[k];
        const Contexts::Neighbour* other = k + 1 < channel.neighbours.size() ? &channel.neighbours[k + 1] : nullptr;
        Contexts::Pair pair;
        for (unsigned a = 0; a < 8; ++a) {
            for (unsigned b = 0; b < 8; ++b) {
                pair.mean[a + 8 * b] = static_cast<std::int8_t>(one.mean[a] + (other ? other->mean[b] : 0));
                pair.spread[a + 8 * b] = static_cast<std::int8_t>(one.spread[a] + (other ? other->spread[b] : 0));
            }
        }
        channel.pairs.push_back(pair);
    }
}

void fill_table(std::int8_t* table, const std::uint8_t* from, unsigned levels) {
    std::memcpy(table, from, levels);
    for (unsigned k = levels; k < 256; ++k) table[k] = table[levels - 1];
}

void check_borders(const std::uint8_t* borders, unsigned count) {
    for (unsigned k = 1; k < count; ++k) {
        if (static_cast<std::int8_t>(borders[k]) < static_cast<std::int8_t>(borders[k - 1])) {
            throw std::invalid_argument("borders of a context fall");
        }
    }
}

}  // namespace

Contexts::Contexts(const std::uint8_t* data, std::size_t size, unsigned channels, unsigned levels, unsigned contexts,
                   bool temporal)
    : levels_(levels), contexts_(contexts), temporal_(temporal) {
    if (contexts < 1 || contexts > kMaxContexts)
        throw std::invalid_argument("contexts must be 1.." + std::to_string(kMaxContexts));
    Reader reader(data, size, "the contexts end too early");
    for (unsigned c = 0; c < channels; ++c) {
        Channel channel{};
        const std::uint8_t* head = reader.take(2);
        channel.fill = head[1];
        if (head[0] > kMaxNeighbours || channel.fill >= levels)
            throw std::invalid_argument("too many neighbours, or no such fill");
        for (unsigned k = 0; k < head[0]; ++k) {
            const std::uint8_t* p = reader.take(4);
            Neighbour n{};
            n.channel = static_cast<unsigned>(p[0] | p[1] << 8);
            n.dy = static_cast<std::int8_t>(p[2]);
            n.dx = static_cast<std::int8_t>(p[3]);
            const bool earlier = n.channel < c || (n.channel == c && n.dy < 0);
            const bool known = earlier || (temporal && n.channel >= channels && n.channel < 2 * channels);
            if (!known || std::abs(n.dy) > kMaxReach || std::abs(n.dx) > kMaxReach) {
                throw std::invalid_argument("channel " + std::to_string(c) +
                                            " has a neighbour that is not known by then and near");
            }
            fill_table(n.mean, reader.take(levels), levels);
            fill_table(n.spread, reader.take(levels), levels);
            channel.neighbours.push_back(n);
        }
        const std::uint8_t* borders = reader.take(kMeanBins - 1);
        check_borders(borders, kMeanBins - 1);
        std::memcpy(channel.mean_borders, borders, kMeanBins - 1);
        for (int sum = -128; sum < 128; ++sum) {
            unsigned bin = 0;
            for (unsigned k = 0; k < kMeanBins - 1; ++k) bin += sum >= static_cast<std::int8_t>(borders[k]);
            channel.mean_bin[static_cast<std::uint8_t>(sum)] = static_cast<std::uint8_t>(bin * kSpreadBins);
        }
        borders = reader.take(kSpreadBins - 1);
        check_borders(borders, kSpreadBins - 1);
        std::memcpy(channel.spread_borders, borders, kSpreadBins - 1);
        std::memset(channel.map, 0, sizeof(channel.map));
        std::memcpy(channel.map, reader.take(kMeanBins * kSpreadBins), kMeanBins * kSpreadBins);
        for (std::uint8_t context : channel.map) {
            if (context >= contexts) throw std::invalid_argument("a bin leads to no context");
        }
        if (levels <= kPairLevels) pair_up(channel);
        channels_.push_back(std::move(channel));
    }
    if (reader.left()) throw std::invalid_argument("bytes follow the contexts");
    for (Channel& channel : channels_) {
        for (Neighbour& n : channel.neighbours)
            std::memset(n.fill, channels_[n.channel % channels].fill, sizeof(n.fill));
    }
}

ContextRows::ContextRows(const Contexts& contexts, unsigned c, const std::uint8_t* all, std::size_t rows,
                         std::size_t columns, Kernel kernel, unsigned scale) noexcept
    : channel(contexts.channel(c)),
      symbols(all + std::size_t{c} * rows * columns),
      height(rows),
      width(columns),
      block_(block_plain),
      lines_(nullptr) {
    const auto plane = static_cast<std::ptrdiff_t>(rows * columns);
    const auto channels = static_cast<std::ptrdiff_t>(contexts.channels()), own = static_cast<std::ptrdiff_t>(c);
    first = -plane * (contexts.temporal() ? own + channels : own);
    end = plane * (channels - own);
    for (std::size_t k = 0; k < channel.neighbours.size(); ++k) {
        const Contexts::Neighbour& n = channel.neighbours[k];
        // The latent before lies just in front of this one.
        const auto its = static_cast<std::ptrdiff_t>(n.channel);
        const std::ptrdiff_t planes = (its < channels ? its : its - 2 * channels) - own;
        down[k] = static_cast<std::uint8_t>(n.dy + kMaxReach);
        right[k] = static_cast<std::uint8_t>(n.dx + kMaxReach);
        offset[k] = planes * plane + n.dy * static_cast<std::ptrdiff_t>(columns) + n.dx;
    }
    for (unsigned bin = 0; bin < sizeof(map); ++bin) map[bin] = static_cast<std::uint8_t>(channel.map[bin] * scale);
#if defined(__x86_64__)
    if (contexts.levels() <= 16 && kernel_allowed(kernel, Kernel::avx2)) block_ = block_by_sixteen;
    if (contexts.levels() <= kPairLevels && kernel_allowed(kernel, Kernel::avx512)) {
        block_ = block_avx512;
        lines_ = lines_avx512;
    }
#elif defined(__aarch64__)
    if (contexts.levels() <= 16 && kernel_allowed(kernel, Kernel::neon)) block_ = block_by_sixteen;
#else
    static_cast<void>(kernel);
#endif
}

std::size_t ContextRows::lines(std::size_t y, std::uint8_t* out) const noexcept {
    const bool inner = y >= kMaxReach && y + kLines + kMaxReach <= height;
    if (inner && lines_ != nullptr) {
        lines_(*this, y, out);
        return kLines;
    }
    for (std::size_t begin = 0; begin < width; begin += kBlock) {
        block(y, begin, width - begin < kBlock ? width - begin : kBlock, out + begin);
    }
    return 1;
}

}  // namespace percodec
