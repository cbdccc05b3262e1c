// Profile 1: rows begin at lane 0, and the row of the tables is chosen symbol by symbol. The plain form.
#include "kernels.hpp"
#include "percodec/contexts.hpp"

namespace percodec {

bool measure_contexts(const Tables& tables, const Contexts& contexts, const std::uint8_t* symbols, unsigned channels,
                      std::size_t height, std::size_t width, unsigned* lanes) noexcept {
    const std::size_t all = std::size_t{channels} * height * width;
    for (std::size_t i = 0; i < all; ++i) {
        if (symbols[i] >= tables.levels()) return false;
    }
    if (lanes == nullptr) return true;
    std::uint64_t total = 0;
    std::uint8_t rows[Contexts::kBlock];
    for (unsigned c = 0; c < channels; ++c) {
        for (std::size_t y = 0; y < height; ++y) {
            const std::uint8_t* line = symbols + (std::size_t{c} * height + y) * width;
            for (std::size_t begin = 0; begin < width; begin += Contexts::kBlock) {
                const std::size_t count = width - begin < Contexts::kBlock ? width - begin : Contexts::kBlock;
                contexts.block(symbols, c, y, height, width, begin, count, rows);
                for (std::size_t i = 0; i < count; ++i) {
                    total += tables.cost(c * contexts.contexts() + rows[i])[line[begin + i]];
                }
            }
        }
        *lanes = lanes_for((total + 255) / 256 / 8);
        if (*lanes == kMaxLanes) return true;  // more content cannot change the answer
    }
    return true;
}

std::uint8_t* encode_contexts(const Tables& tables, const Contexts& contexts, const std::uint8_t* symbols,
                              unsigned channels, std::size_t height, std::size_t width, unsigned lanes,
                              std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next) noexcept {
    const unsigned mask = tables.encode_mask();
    std::uint8_t rows[Contexts::kBlock];
    for (unsigned c = channels; c-- > 0;) {
        for (std::size_t y = height; y-- > 0;) {
            const std::uint8_t* line = symbols + (std::size_t{c} * height + y) * width;
            for (std::size_t end = width; end > 0;) {
                const std::size_t first = (end - 1) / Contexts::kBlock * Contexts::kBlock;
                if (static_cast<std::size_t>(next - begin) < 2 * (end - first)) return nullptr;
                contexts.block(symbols, c, y, height, width, first, end - first, rows);
                for (std::size_t x = end; x-- > first;) {
                    const Tables::Encode* row = tables.encode(c * contexts.contexts() + rows[x - first]);
                    std::uint32_t& state = states[x % lanes];
                    state = encode_symbol(row[line[x] & mask], state, next);
                }
                end = first;
            }
        }
    }
    return next;
}

bool decode_contexts(const Tables& tables, const Contexts& contexts, unsigned channels, std::size_t height,
                     std::size_t width, unsigned lanes, std::uint32_t* states, WordReader& words,
                     std::uint8_t* symbols) noexcept {
    std::uint8_t rows[Contexts::kBlock];
    for (unsigned c = 0; c < channels; ++c) {
        for (std::size_t y = 0; y < height; ++y) {
            std::uint8_t* line = symbols + (std::size_t{c} * height + y) * width;
            for (std::size_t begin = 0; begin < width; begin += Contexts::kBlock) {
                const std::size_t count = width - begin < Contexts::kBlock ? width - begin : Contexts::kBlock;
                contexts.block(symbols, c, y, height, width, begin, count, rows);
                for (std::size_t i = 0; i < count; ++i) {
                    if (!words.ready()) return false;
                    const std::uint32_t* slots = tables.decode(c * contexts.contexts() + rows[i]);
                    line[begin + i] = decode_symbol(slots, states[(begin + i) % lanes], words.next);
                }
            }
        }
    }
    return true;
}

}  // namespace percodec
