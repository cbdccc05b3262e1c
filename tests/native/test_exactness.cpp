// Every kernel of this processor writes and reads the same bytes, over as many
// symbols as asked for: random tables from even to nearly certain, shapes and
// lane counts, with contexts, of pairs, of steps and without. The checksum of all packets is the
// same on every machine, by every compiler. Arguments: the folder of the golden
// packets, the least number of symbols, a seed.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "percodec/crc32c.hpp"
#include "percodec/entropy_model.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

const char* const kContextModels[] = {"v1.0-contexts-5x7x70-L6-auto",     "v1.0-contexts-3x9x21-L6-lanes16",
                                      "v1.0-contexts-2x4x300-L17-lanes5", "v1.0-temporal-3x6x70-L6-lanes8",
                                      "v1.0-contexts-4x9x70-L6-K16-auto", "v1.0-temporal-3x6x90-L6-K16-lanes32"};
const char* const kStepModels[] = {"v1.0-steps-6x9x21-lanes16", "v1.0-steps-9x5x36-auto", "v1.0-steps-2x5x37-lanes3",
                                   "v1.0-steps-temporal-6x9x21-lanes16", "v1.0-steps-temporal-5x7x40-auto"};
constexpr unsigned kModels = sizeof(kContextModels) / sizeof(kContextModels[0]);
const unsigned kLevels[] = {6, 6, 6, 6, 2, 3, 5, 8, 15, 16, 17, 40};
const unsigned kLanes[] = {0, 0, 64, 64, 32, 16, 8, 4, 1, 3, 33, 48};

Bytes read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

// The same numbers everywhere: the standard's distributions are not.
struct Random {
    std::mt19937_64 bits;
    unsigned below(unsigned count) { return static_cast<unsigned>(bits() % count); }
};

std::vector<std::uint16_t> random_tables(Random& random, unsigned channels, unsigned levels, std::uint64_t scale) {
    std::vector<std::uint16_t> cdf;
    for (unsigned c = 0; c < channels; ++c) {
        const unsigned favourite = random.below(levels), weight = 1u << random.below(13);
        std::vector<std::uint64_t> parts;
        std::uint64_t all = 0;
        for (unsigned k = 0; k < levels; ++k) {
            parts.push_back(1 + random.below(1000) + (k == favourite ? std::uint64_t{weight} * 1000 : 0));
            all += parts.back();
        }
        std::uint64_t sum = 0;
        cdf.push_back(0);
        for (unsigned k = 0; k < levels; ++k) {
            sum += parts[k];
            cdf.push_back(static_cast<std::uint16_t>(k + 1 + sum * (scale - levels) / all));
        }
    }
    return cdf;
}

struct Total {
    std::uint64_t symbols = 0, packets = 0;
    std::uint32_t checksum = 0;
};

void run(const percodec::LatentCoder& coder, const Bytes& symbols, unsigned lanes, Total& total) {
    Bytes first, buffer(coder.packet_bound()), decoded(symbols);
    const std::size_t before = symbols.size() - coder.symbols();
    for (const percodec::Kernel kernel : {percodec::Kernel::scalar, percodec::Kernel::avx2, percodec::Kernel::avx512,
                                          percodec::Kernel::neon, percodec::Kernel::automatic}) {
        if (!percodec::kernel_supported(kernel)) continue;
        percodec::PacketHeader header;
        header.lanes = static_cast<std::uint8_t>(lanes);
        std::size_t size = 0;
        bool right =
            coder.encode(symbols.data(), &header, kernel, buffer.data(), buffer.size(), &size) == percodec::Status::ok;
        const Bytes packet(buffer.end() - static_cast<std::ptrdiff_t>(size), buffer.end());
        if (first.empty()) first = packet;
        right = right && packet == first;
        std::fill(decoded.begin() + static_cast<std::ptrdiff_t>(before), decoded.end(), std::uint8_t{0xFF});
        right = right &&
                coder.decode(packet.data(), packet.size(), kernel, decoded.data(), &header) == percodec::Status::ok;
        if (!right || decoded != symbols) {
            std::fprintf(stderr, "packet %llu, kernel %d: bytes or symbols differ\n",
                         static_cast<unsigned long long>(total.packets), static_cast<int>(kernel));
            std::exit(1);
        }
    }
    total.checksum = percodec::crc32c(first.data(), first.size(), total.checksum);
    total.symbols += coder.symbols();
    total.packets += 1;
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 4) {
        std::fprintf(stderr, "usage: %s PACKETS SYMBOLS SEED\n", arguments[0]);
        return 2;
    }
    std::vector<percodec::EntropyModel> models;
    for (const char* name : kContextModels) {
        const Bytes data = read(std::string(arguments[1]) + "/" + name + ".pcem");
        models.emplace_back(data.data(), data.size());
    }
    std::vector<percodec::EntropyModel> steps;
    for (const char* name : kStepModels) {
        const Bytes data = read(std::string(arguments[1]) + "/" + name + ".pcem");
        steps.emplace_back(data.data(), data.size());
    }
    const std::uint64_t wanted = std::strtoull(arguments[2], nullptr, 10);
    Random random{std::mt19937_64(std::strtoull(arguments[3], nullptr, 10))};
    Total total;
    while (total.symbols < wanted) {
        const unsigned height = 1 + random.below(64), width = 1 + random.below(300);
        const unsigned lanes = kLanes[random.below(12)];
        if (random.below(3) == 0) {
            const percodec::EntropyModel& model = steps[random.below(5)];
            const percodec::LatentCoder coder = model.coder(height, width);
            const unsigned rare = 1 + random.below(12), empty = random.below(3) == 0 ? random.below(height) : 0;
            Bytes symbols;
            for (unsigned p = 0; p < coder.planes(); ++p) {
                const unsigned c = p % model.channels();
                for (unsigned i = 0; i < height * width; ++i) {
                    const bool zero = i < empty * width || random.below(rare) != 0;
                    symbols.push_back(
                        static_cast<std::uint8_t>(zero ? model.offset(c) : random.below(model.levels_of(c))));
                }
            }
            run(coder, symbols, lanes, total);
            continue;
        }
        if (random.below(3) == 0) {
            const percodec::EntropyModel& model = models[random.below(kModels)];
            const percodec::LatentCoder coder = model.coder(height, width);
            Bytes symbols(std::size_t{coder.planes()} * height * width);
            const unsigned spread = 1 + random.below(model.levels());
            for (std::uint8_t& s : symbols) s = static_cast<std::uint8_t>(random.below(spread));
            run(coder, symbols, lanes, total);
            continue;
        }
        const unsigned channels = 1 + random.below(8), levels = kLevels[random.below(12)];
        if (levels <= 8 && random.below(2) == 0) {
            const std::vector<std::uint16_t> cdf =
                random_tables(random, channels, levels * levels, percodec::kPairScale);
            percodec::PairTables tables(cdf.data(), channels, levels);
            const bool as_likely = random.below(4) != 0;  // or all alike: then most of them are of the rarest pairs
            Bytes symbols;
            for (unsigned c = 0; c < channels; ++c) {
                for (unsigned i = 0; i < height * width; i += 2) {
                    const unsigned pair = tables.channel(c).pair_of[random.below(percodec::kPairScale)];
                    const unsigned first = as_likely ? pair / percodec::kPairLevels : random.below(levels);
                    const unsigned second = as_likely ? pair % percodec::kPairLevels : random.below(levels);
                    symbols.push_back(static_cast<std::uint8_t>(first));
                    if (i + 1 < height * width) symbols.push_back(static_cast<std::uint8_t>(second));
                }
            }
            const percodec::LatentCoder coder(std::move(tables), height, width, 3, 1);
            run(coder, symbols, lanes, total);
            continue;
        }
        const std::vector<std::uint16_t> cdf = random_tables(random, channels, levels, percodec::kProbabilityScale);
        const percodec::LatentCoder coder(cdf.data(), channels, levels, height, width, 0, 1);
        Bytes symbols;
        for (unsigned c = 0; c < channels; ++c) {
            const std::uint16_t* row = cdf.data() + std::size_t{c} * (levels + 1);
            for (unsigned i = 0; i < height * width; ++i) {
                const unsigned slot = random.below(percodec::kProbabilityScale);
                unsigned level = 0;
                while (row[level + 1] <= slot) ++level;
                symbols.push_back(static_cast<std::uint8_t>(level));
            }
        }
        run(coder, symbols, lanes, total);
    }
    std::printf("%llu symbols, %llu packets, checksum %08x\n", static_cast<unsigned long long>(total.symbols),
                static_cast<unsigned long long>(total.packets), static_cast<unsigned>(total.checksum));
    return 0;
}
