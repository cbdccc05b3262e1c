// Every allocation of the core fails once: it says so, leaks nothing, and works
// again afterwards. Coding allocates nothing. Argument: the folder of the
// golden packets.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#include "percodec/entropy_model.hpp"

namespace {

long live = 0, made = 0,
     failing = -1;  // `failing`: allocations until one fails, or none does

}  // namespace

void* operator new(std::size_t size) {
    if (failing == 0) throw std::bad_alloc();
    if (failing > 0) --failing;
    void* const p = std::malloc(size);
    if (p == nullptr) throw std::bad_alloc();
    ++live, ++made;
    return p;
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    if (failing == 0) throw std::bad_alloc();
    if (failing > 0) --failing;
    const auto align = static_cast<std::size_t>(alignment);
    void* const p = std::aligned_alloc(align, (size + align - 1) / align * align);
    if (p == nullptr) throw std::bad_alloc();
    ++live, ++made;
    return p;
}
void operator delete(void* p) noexcept {
    live -= p != nullptr;
    std::free(p);
}
void operator delete(void* p, std::size_t) noexcept {
    operator delete(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
    operator delete(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
    operator delete(p);
}

namespace {

void check(bool condition, const char* what) {  // no string: it would be an allocation
    if (condition) return;
    std::fprintf(stderr, "not true: %s\n", what);
    std::exit(1);
}

std::vector<std::uint8_t> read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    check(file.good(), "the file can be read");
    return std::vector<std::uint8_t>(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

// Every allocation of opening a model and its coder, failing once each.
void fails_cleanly(const std::string& stem, std::uint32_t channels, std::uint32_t height, std::uint32_t width) {
    const std::vector<std::uint8_t> model = read(stem + ".pcem"), packet = read(stem + ".packet");
    std::vector<std::uint8_t> symbols(std::size_t{channels} * height * width), buffer(7 * symbols.size() + 1024);
    const long before = live;
    long failures = 0;
    for (long nth = 0;; ++nth) {
        failing = nth;
        try {
            const percodec::EntropyModel tables(model.data(), model.size());
            const percodec::LatentCoder coder = tables.coder(height, width);
            const long known = made;
            percodec::PacketHeader header;
            std::size_t size = 0;
            failing = 0;
            const percodec::Status decoded =
                coder.decode(packet.data(), packet.size(), percodec::Kernel::automatic, symbols.data(), &header);
            const percodec::Status encoded =
                coder.encode(symbols.data(), &header, percodec::Kernel::automatic, buffer.data(), buffer.size(), &size);
            failing = -1;
            check(decoded == percodec::Status::ok && encoded == percodec::Status::ok, "coding works");
            check(size == packet.size(), "and writes the packet again");
            check(made == known, "without an allocation");
            break;
        } catch (const std::bad_alloc&) {
            failing = -1;
            ++failures;
            check(live == before, "a failed allocation leaves nothing behind");
        }
    }
    check(live == before, "nothing is left behind");
    check(failures > 2, "allocations did fail");
    std::printf("%ld allocations failed, one at a time: all right\n", failures);
}

}  // namespace

int main(int count, char** arguments) {
    check(count == 2, "one argument, the folder of the golden packets");
    fails_cleanly(std::string(arguments[1]) + "/v1.0-contexts-5x7x70-L6-auto", 5, 7, 70);
    fails_cleanly(std::string(arguments[1]) + "/v1.0-pairs-3x7x13-L6-lanes16", 3, 7, 13);
    fails_cleanly(std::string(arguments[1]) + "/v1.0-steps-6x9x21-lanes16", 6, 9, 21);
    return 0;
}
