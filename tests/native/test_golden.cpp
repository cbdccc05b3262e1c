// The golden packets of tests/conformance, by every kernel of this processor: decoded to the frozen symbols, and
// encoded again to the frozen bytes. Argument: the folder that holds them.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "percodec/entropy_model.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Case {
    const char* name;
    std::uint32_t height, width;
};

const Case kCases[] = {
    {"v1.0-order0-4x6x7-L6-lane1", 6, 7},        {"v1.0-order0-8x14x14-L6-auto", 14, 14},
    {"v1.0-order0-3x9x11-L16-lanes16", 9, 11},   {"v1.0-order0-2x5x37-L6-lanes64", 5, 37},
    {"v1.0-order0-2x3x50-L256-lanes3", 3, 50},   {"v1.0-contexts-5x7x70-L6-auto", 7, 70},
    {"v1.0-contexts-3x9x21-L6-lanes16", 9, 21},  {"v1.0-contexts-2x4x300-L17-lanes5", 4, 300},
    {"v1.0-temporal-3x6x70-L6-lanes8", 6, 70},   {"v1.0-pairs-3x7x13-L6-lanes16", 7, 13},
    {"v1.0-contexts-4x9x70-L6-K16-auto", 9, 70}, {"v1.0-temporal-3x6x90-L6-K16-lanes32", 6, 90},
    {"v1.0-pairs-2x9x31-L8-lanes64", 9, 31},     {"v1.0-pairs-4x20x30-L3-auto", 20, 30},
    {"v1.0-steps-6x9x21-lanes16", 9, 21},        {"v1.0-steps-9x5x36-auto", 5, 36},
    {"v1.0-steps-2x5x37-lanes3", 5, 37},         {"v1.0-steps-temporal-6x9x21-lanes16", 9, 21},
    {"v1.0-steps-temporal-5x7x40-auto", 7, 40},
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

}  // namespace

int main(int count, char** arguments) {
    check(count == 2, "one argument, the folder of the golden packets");
    for (const Case& c : kCases) {
        const std::string stem = std::string(arguments[1]) + "/" + c.name;
        const Bytes model = read(stem + ".pcem"), packet = read(stem + ".packet"), symbols = read(stem + ".symbols");
        percodec::PacketHeader header;
        check(percodec::parse_header(packet.data(), packet.size(), &header) == percodec::Status::ok,
              stem + " is a packet");
        const percodec::EntropyModel tables(model.data(), model.size());
        check(tables.table_hash() == header.table_hash, stem + " names its tables");
        const percodec::LatentCoder coder = tables.coder(c.height, c.width);
        const std::size_t before = std::size_t{coder.planes() - coder.channels()} * c.height * c.width;
        check(before + coder.symbols() == symbols.size(), stem + " has the shape in its name");
        for (const percodec::Kernel kernel :
             {percodec::Kernel::automatic, percodec::Kernel::scalar, percodec::Kernel::avx2, percodec::Kernel::avx512,
              percodec::Kernel::neon}) {
            Bytes decoded(symbols.begin(), symbols.begin() + static_cast<std::ptrdiff_t>(before));
            decoded.resize(symbols.size());
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
    for (const Case* c : {&kCases[5], &kCases[9], &kCases[14]}) {
        const Bytes model = read(std::string(arguments[1]) + "/" + c->name + ".pcem");
        for (std::size_t size = 0; size < model.size(); ++size) {
            bool refused = false;
            try {
                const percodec::EntropyModel cut(model.data(), size);
            } catch (const std::invalid_argument&) {
                refused = true;
            }
            check(refused, "tables cut short are refused");
        }
    }
    std::puts("golden packets: all right");
    return 0;
}
