// The golden packets of tests/conformance, by every kernel of this processor: decoded to the frozen symbols, and
// encoded again to the frozen bytes. Argument: the folder that holds them.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "percodec/packet.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Case {
    const char* name;
    std::uint32_t height, width;
};

const Case kCases[] = {
    {"v1.0-order0-4x6x7-L6-lane1", 6, 7},       {"v1.0-order0-8x14x14-L6-auto", 14, 14},
    {"v1.0-order0-3x9x11-L16-lanes16", 9, 11},  {"v1.0-order0-2x5x37-L6-lanes64", 5, 37},
    {"v1.0-order0-2x3x50-L256-lanes3", 3, 50},  {"v1.0-contexts-5x7x70-L6-auto", 7, 70},
    {"v1.0-contexts-3x9x21-L6-lanes16", 9, 21}, {"v1.0-contexts-2x4x300-L17-lanes5", 4, 300},
};

void check(bool condition, const std::string& what) {
    if (condition) return;
    std::fprintf(stderr, "not true: %s\n", what.c_str());
    std::exit(1);
}

Bytes read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    check(file.good(), "can be read: " + path);
    return Bytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

std::uint16_t word(const Bytes& bytes, std::size_t at) {
    return static_cast<std::uint16_t>(bytes[at] | bytes[at + 1] << 8);
}

}  // namespace

int main(int count, char** arguments) {
    check(count == 2, "one argument, the folder of the golden packets");
    for (const Case& c : kCases) {
        const std::string stem = std::string(arguments[1]) + "/" + c.name;
        const Bytes model = read(stem + ".pcem"), packet = read(stem + ".packet"), symbols = read(stem + ".symbols");
        const unsigned contexts = model[7], channels = word(model, 8), levels = word(model, 10);
        const std::size_t end = 12 + std::size_t{2} * channels * (contexts ? contexts : 1) * (levels + 1);
        std::vector<std::uint16_t> cdf;
        for (std::size_t at = 12; at < end; at += 2) cdf.push_back(word(model, at));
        percodec::PacketHeader header;
        check(percodec::parse_header(packet.data(), packet.size(), &header) == percodec::Status::ok,
              stem + " is a packet");
        const percodec::LatentCoder coder =
            contexts
                ? percodec::LatentCoder(
                      cdf.data(),
                      percodec::Contexts(model.data() + end, model.size() - end, channels, levels, contexts), channels,
                      levels, c.height, c.width, model[5], header.table_hash)
                : percodec::LatentCoder(cdf.data(), channels, levels, c.height, c.width, model[5], header.table_hash);
        check(coder.symbols() == symbols.size(), stem + " has the shape in its name");
        for (const percodec::Kernel kernel : {percodec::Kernel::automatic, percodec::Kernel::scalar,
                                              percodec::Kernel::avx2, percodec::Kernel::avx512}) {
            Bytes decoded(coder.symbols());
            check(coder.decode(packet.data(), packet.size(), kernel, decoded.data(), &header) == percodec::Status::ok,
                  stem + " decodes");
            check(decoded == symbols, stem + " decodes to the frozen symbols");
            Bytes buffer(coder.packet_bound());
            std::size_t size = 0;
            check(coder.encode(symbols.data(), &header, kernel, buffer.data(), buffer.size(), &size) ==
                      percodec::Status::ok,
                  stem + " encodes");
            check(Bytes(buffer.end() - static_cast<std::ptrdiff_t>(size), buffer.end()) == packet,
                  stem + " encodes to the frozen bytes");
        }
    }
    std::puts("golden packets: all right");
    return 0;
}
