// The core by itself: checksums, round trips of every kernel, bounds. Buffers are heap blocks of exactly the needed
// size, so that the sanitizers see a single byte read or written beyond them.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "percodec/crc32c.hpp"
#include "percodec/packet.hpp"

namespace {

using percodec::Kernel;
using percodec::LatentCoder;
using percodec::PacketHeader;
using percodec::Status;

#define CHECK(condition)                                                                   \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                                  \
        }                                                                                  \
    } while (false)

const Kernel kKernels[] = {Kernel::automatic, Kernel::scalar, Kernel::avx2, Kernel::avx512, Kernel::neon};

struct Random {
    std::uint64_t state;
    std::uint32_t operator()(std::uint32_t below) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::uint32_t>((state >> 32) % below);
    }
};

// With a scale of 2^14, of pairs: `entries` is the square of the levels.
std::vector<std::uint16_t> random_cdf(Random& random, unsigned channels, unsigned entries, std::uint32_t scale = 4096) {
    std::vector<std::uint16_t> cdf;
    for (unsigned channel = 0; channel < channels; ++channel) {
        std::vector<std::uint32_t> frequency(entries, 1);
        for (std::uint32_t left = scale - entries; left > 0;) {
            const std::uint32_t share = 1 + random(left);
            frequency[random(entries)] += share;
            left -= share;
        }
        std::uint32_t sum = 0;
        cdf.push_back(0);
        for (const std::uint32_t f : frequency) cdf.push_back(static_cast<std::uint16_t>(sum += f));
    }
    return cdf;
}

void test_crc32c() {
    CHECK(percodec::crc32c("123456789", 9) == 0xE3069283u);
    CHECK(percodec::crc32c("", 0) == 0);
    Random random{1};
    std::vector<std::uint8_t> data(20000);
    for (std::uint8_t& byte : data) byte = static_cast<std::uint8_t>(random(256));
    for (std::size_t size : {0, 1, 7, 8, 9, 3071, 3072, 3073, 3079, 6150, 19990}) {
        for (std::size_t offset = 0; offset < 9; ++offset) {
            const std::uint8_t* p = data.data() + offset;
            CHECK(percodec::crc32c(p, size) == percodec::crc32c_portable(p, size));
            CHECK(percodec::crc32c(p + size / 3, size - size / 3, percodec::crc32c(p, size / 3)) ==
                  percodec::crc32c(p, size));
        }
    }
}

void test_tables() {
    Random random{2};
    for (const std::uint32_t frequency : {1u, 2u, 3u, 5u, 7u, 11u, 1023u, 1024u, 1025u, 2731u, 4093u, 4094u, 4095u}) {
        const std::uint16_t cdf[] = {0, static_cast<std::uint16_t>(frequency), 4096};
        const percodec::Tables tables(cdf, 1, 2);
        const percodec::Tables::Encode& e = tables.encode(0)[0];
        const percodec::Tables::Vector& v = *tables.vector(0);
        for (int k = 0; k < 20000; ++k) {
            const std::uint32_t x = 1 + random(0x7FFFFFFF);
            const std::uint32_t wanted = x / frequency * 4096 + x % frequency;
            const auto wide = static_cast<std::uint32_t>(static_cast<unsigned __int128>(e.reciprocal) * x >> 64);
            CHECK(x + e.bias + wide * e.complement == wanted);
            const auto narrow = static_cast<std::uint32_t>((std::uint64_t{v.reciprocal[0]} * x >> 32) >> v.shift[0]);
            CHECK(x + v.bias[0] + narrow * v.complement[0] == wanted);
        }
    }
    const std::uint16_t bad[][3] = {{1, 2, 4096}, {0, 0, 4096}, {0, 4096, 4096}, {0, 2, 4095}};
    for (const auto& cdf : bad) {
        bool refused = false;
        try {
            percodec::Tables(cdf, 1, 2);
        } catch (const std::invalid_argument&) {
            refused = true;
        }
        CHECK(refused);
    }
}

// Another thread may write to symbols while they are coded with contexts: whatever byte it is then finds an entry.
void test_any_byte_is_inside_every_row() {
    Random random{8};
    for (const unsigned levels : {2u, 6u, 17u, 255u}) {
        const std::vector<std::uint16_t> cdf = random_cdf(random, 6, levels);
        const percodec::Tables tables(cdf.data(), 6, levels, 3);
        for (unsigned byte = levels; byte < 256; ++byte) {
            CHECK(tables.encode(5)[byte].renorm_from == tables.encode(5)[levels - 1].renorm_from);
            CHECK(tables.cost(5)[byte] == 0);
        }
    }
}

void test_pair_tables() {
    Random random{6};
    for (const std::uint32_t frequency : {1u, 2u, 3u, 5u, 1023u, 4096u, 8191u, 8192u, 11585u, 11586u, 16380u, 16381u}) {
        const auto at = [&](std::uint32_t more) { return static_cast<std::uint16_t>(frequency + more); };
        const std::uint16_t cdf[] = {0, at(0), at(1), at(2), 16384};
        const percodec::PairTables tables(cdf, 1, 2);
        const percodec::Tables::Encode& e = tables.channel(0).encode[0];
        CHECK(e.renorm_from == frequency << 18);
        for (int k = 0; k < 20000; ++k) {
            const std::uint32_t x = k < 2 ? e.renorm_from - 1 + static_cast<std::uint32_t>(k) : 1 + random(0xFFFFFFFF);
            const auto quotient = static_cast<std::uint32_t>(static_cast<unsigned __int128>(e.reciprocal) * x >> 64);
            CHECK(x + e.bias + quotient * e.complement == x / frequency * 16384 + x % frequency);
        }
    }
    const std::uint16_t bad[][5] = {
        {1, 2, 3, 4, 16384}, {0, 0, 1, 2, 16384}, {0, 1, 2, 16384, 16384}, {0, 1, 2, 3, 4096}};
    for (const auto& cdf : bad) {
        bool refused = false;
        try {
            percodec::PairTables(cdf, 1, 2);
        } catch (const std::invalid_argument&) {
            refused = true;
        }
        CHECK(refused);
    }
}

struct Sample {
    std::vector<std::uint16_t> cdf;
    std::unique_ptr<LatentCoder> coder;
    std::vector<std::uint8_t> symbols;
};

Sample make_sample(Random& random, unsigned channels, unsigned levels, unsigned height, unsigned width) {
    Sample sample;
    sample.cdf = random_cdf(random, channels, levels);
    sample.coder = std::make_unique<LatentCoder>(sample.cdf.data(), channels, levels, height, width, 0, 77);
    for (unsigned channel = 0; channel < channels; ++channel) {
        const std::uint32_t* slots = sample.coder->tables().decode(channel);
        for (unsigned p = 0; p < height * width; ++p) {
            const bool drawn_from_tables = random(8) != 0;
            const std::uint32_t level = drawn_from_tables ? slots[random(4096)] & 0xFF : random(levels);
            sample.symbols.push_back(static_cast<std::uint8_t>(level));
        }
    }
    return sample;
}

Sample make_pairs(Random& random, unsigned channels, unsigned levels, unsigned height, unsigned width) {
    Sample sample;
    sample.cdf = random_cdf(random, channels, levels * levels, 16384);
    percodec::PairTables tables(sample.cdf.data(), channels, levels);
    for (unsigned channel = 0; channel < channels; ++channel) {
        for (unsigned p = 0; p < height * width; ++p) {
            const std::uint8_t pair = tables.channel(channel).pair_of[random(16384)];
            const std::uint32_t level = random(8) == 0 ? random(levels) : p % 2 ? pair % 8u : pair / 8u;
            sample.symbols.push_back(static_cast<std::uint8_t>(level));
        }
    }
    sample.coder = std::make_unique<LatentCoder>(std::move(tables), height, width, 3, 77);
    return sample;
}

std::vector<std::uint8_t> encoded(const Sample& sample, std::uint8_t lanes, Kernel kernel) {
    std::vector<std::uint8_t> buffer(sample.coder->packet_bound());
    PacketHeader header;
    header.lanes = lanes;
    std::size_t size = 0;
    CHECK(sample.coder->encode(sample.symbols.data(), &header, kernel, buffer.data(), buffer.size(), &size) ==
          Status::ok);
    return {buffer.end() - static_cast<std::ptrdiff_t>(size), buffer.end()};
}

// Decodes from a heap block of exactly this size into another.
Status decode_exact(const LatentCoder& coder, const std::vector<std::uint8_t>& packet, Kernel kernel,
                    std::vector<std::uint8_t>* symbols) {
    std::unique_ptr<std::uint8_t[]> block(new std::uint8_t[packet.size()]);
    if (!packet.empty()) std::memcpy(block.get(), packet.data(), packet.size());
    symbols->assign(coder.symbols(), 0);
    symbols->shrink_to_fit();
    PacketHeader header;
    return coder.decode(block.get(), packet.size(), kernel, symbols->data(), &header);
}

void seal(std::vector<std::uint8_t>* packet) {
    const auto length = static_cast<std::uint32_t>(packet->size() - percodec::kHeaderBytes);
    for (unsigned i = 0; i < 4; ++i) (*packet)[32 + i] = static_cast<std::uint8_t>(length >> (8 * i));
    const std::uint32_t crc = percodec::crc32c(packet->data() + 44, length, percodec::crc32c(packet->data(), 40));
    for (unsigned i = 0; i < 4; ++i) (*packet)[40 + i] = static_cast<std::uint8_t>(crc >> (8 * i));
}

void test_round_trips() {
    Random random{3};
    std::vector<std::uint8_t> decoded;
    for (const unsigned levels : {2u, 6u, 7u, 8u, 9u, 16u, 17u, 256u}) {
        for (int repeat = 0; repeat < 16; ++repeat) {
            const bool pairs = repeat % 2 && levels <= 8;
            const Sample sample =
                (pairs ? make_pairs : make_sample)(random, 1 + random(4), levels, 1 + random(20), 1 + random(20));
            for (const unsigned lanes : {0u, 1u, 2u, 3u, 4u, 8u, 11u, 16u, 17u, 32u, 40u, 48u, 63u, 64u}) {
                const auto count = static_cast<std::uint8_t>(lanes);
                const std::vector<std::uint8_t> packet = encoded(sample, count, Kernel::scalar);
                for (const Kernel kernel : kKernels) {
                    CHECK(encoded(sample, count, kernel) == packet);
                    CHECK(decode_exact(*sample.coder, packet, kernel, &decoded) == Status::ok);
                    CHECK(decoded == sample.symbols);
                }
            }
        }
    }
}

// Every capacity from nothing to the bound: an error, or the same packet, and never a byte outside the block.
void check_encode_bounds(const Sample& sample) {
    for (const unsigned lanes : {1u, 5u, 8u, 16u, 64u}) {
        const std::vector<std::uint8_t> packet = encoded(sample, static_cast<std::uint8_t>(lanes), Kernel::scalar);
        for (const Kernel kernel : kKernels) {
            for (std::size_t capacity = 0; capacity <= sample.coder->packet_bound(); ++capacity) {
                std::unique_ptr<std::uint8_t[]> block(new std::uint8_t[capacity]);
                PacketHeader header;
                header.lanes = static_cast<std::uint8_t>(lanes);
                std::size_t size = 0;
                const Status status =
                    sample.coder->encode(sample.symbols.data(), &header, kernel, block.get(), capacity, &size);
                if (capacity < packet.size()) CHECK(status == Status::no_space);
                if (capacity == sample.coder->packet_bound()) CHECK(status == Status::ok);
                if (status == Status::ok) {
                    CHECK(size == packet.size());
                    CHECK(std::memcmp(block.get() + (capacity - size), packet.data(), size) == 0);
                }
            }
        }
    }
}

void test_encode_bounds() {
    Random random{4};
    const Sample sample = make_sample(random, 3, 6, 9, 13);
    check_encode_bounds(sample);
    check_encode_bounds(make_pairs(random, 3, 6, 9, 13));
    Sample worst;  // twelve bits a symbol: nearly every lane of every group, full or partial, emits a word
    worst.cdf = {0, 1, 4096, 0, 1, 4096, 0, 1, 4096, 0, 1, 4096};
    worst.coder = std::make_unique<LatentCoder>(worst.cdf.data(), 4, 2, 11, 13, 0, 77);
    worst.symbols.assign(worst.coder->symbols(), 0);
    check_encode_bounds(worst);
    worst.cdf = {0, 1, 2, 3, 16384, 0, 1, 2, 3, 16384};
    worst.coder = std::make_unique<LatentCoder>(percodec::PairTables(worst.cdf.data(), 2, 2), 11, 13, 3, 77);
    worst.symbols.assign(worst.coder->symbols(), 0);
    check_encode_bounds(worst);
    std::vector<std::uint8_t> wrong = sample.symbols;
    wrong[17] = 6;
    std::vector<std::uint8_t> buffer(sample.coder->packet_bound());
    for (const unsigned lanes : {0u, 4u}) {
        PacketHeader header;
        header.lanes = static_cast<std::uint8_t>(lanes);
        std::size_t size = 0;
        CHECK(sample.coder->encode(wrong.data(), &header, Kernel::automatic, buffer.data(), buffer.size(), &size) ==
              Status::symbol_out_of_range);
    }
}

void test_altered_packets() {
    Random random{5};
    std::vector<std::uint8_t> decoded;
    for (const unsigned levels : {6u, 8u, 16u, 40u}) {
        for (const unsigned lanes : {1u, 4u, 8u, 16u, 24u, 64u}) {
            const Sample sample = (levels == 8 ? make_pairs : make_sample)(random, 2, levels, 11, 17);
            const std::vector<std::uint8_t> packet =
                encoded(sample, static_cast<std::uint8_t>(lanes), Kernel::automatic);
            for (const Kernel kernel : kKernels) {
                for (std::size_t size = 0; size < packet.size(); ++size) {
                    std::vector<std::uint8_t> cut(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(size));
                    CHECK(decode_exact(*sample.coder, cut, kernel, &decoded) != Status::ok);
                    if (size < percodec::kHeaderBytes) continue;
                    seal(&cut);
                    CHECK(decode_exact(*sample.coder, cut, kernel, &decoded) != Status::ok);
                }
                for (int k = 0; k < 500; ++k) {
                    std::vector<std::uint8_t> altered = packet;
                    const std::size_t first =
                        percodec::kHeaderBytes + random(static_cast<std::uint32_t>(packet.size() - 44));
                    for (std::size_t i = first; i < altered.size() && i < first + 1 + random(9); ++i) {
                        altered[i] ^= static_cast<std::uint8_t>(1 + random(255));
                    }
                    CHECK(decode_exact(*sample.coder, altered, kernel, &decoded) == Status::bad_crc);
                    seal(&altered);
                    CHECK(decode_exact(*sample.coder, altered, kernel, &decoded) != Status::ok);
                }
                for (std::size_t extra = 1; extra < 300; ++extra) {
                    std::vector<std::uint8_t> longer = packet;
                    for (std::size_t i = 0; i < extra; ++i) longer.push_back(static_cast<std::uint8_t>(random(256)));
                    CHECK(decode_exact(*sample.coder, longer, kernel, &decoded) == Status::bad_length);
                    seal(&longer);
                    CHECK(decode_exact(*sample.coder, longer, kernel, &decoded) != Status::ok);
                }
            }
        }
    }
}

// What the encoders in planes take for granted of the reciprocals: with the product's three upper parts the quotient is
// 0 to 3 too low, and the two lower ones together are a word.
void test_reciprocals_of_pairs() {
    Random random{6};
    for (std::uint32_t frequency = 1; frequency <= 16381; ++frequency) {
        const auto f = static_cast<std::uint16_t>(frequency);
        const std::uint16_t rest[] = {static_cast<std::uint16_t>(f + 1), static_cast<std::uint16_t>(f + 2)};
        const std::uint16_t cdf[] = {0, f, rest[0], rest[1], 16384};
        const percodec::PairTables tables(cdf, 1, 2);
        const std::uint32_t low = tables.channel(0).reciprocal_low[0], high = tables.channel(0).reciprocal_high[0];
        const auto check = [&](std::uint32_t x) {
            const std::uint32_t upper = x >> 16, lower = x & 0xFFFF;
            const std::uint32_t below = (upper * low >> 16) + (lower * high >> 16);
            const std::uint32_t estimate = upper * high + below, quotient = x / frequency;
            CHECK(below < 65536);
            CHECK(estimate <= quotient && quotient <= estimate + 3);
        };
        const std::uint32_t end = frequency << 18;  // one renormalised state more than there can be
        if (frequency == 1) {
            for (std::uint32_t x = 0; x < end; ++x) check(x);
        }
        for (std::uint32_t k = 1; k <= 64; ++k) {
            check(end - k);
            check(end - (random(4 * frequency) << 16) - k);
            check(frequency * (1 + random((1u << 18) - 1)) - 1);
            check(random(end));
        }
    }
}

}  // namespace

int main() {
    test_crc32c();
    test_tables();
    test_any_byte_is_inside_every_row();
    test_pair_tables();
    test_reciprocals_of_pairs();
    test_round_trips();
    test_encode_bounds();
    test_altered_packets();
    std::puts("core: all right");
    return 0;
}
