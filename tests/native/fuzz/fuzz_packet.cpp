// Any bytes as a packet: refused, or decoded to symbols that code to a packet of the same content again; as a compact
// one: judged alike by every kernel, and what is accepted is what the encoder writes.
#include "tables.hpp"

namespace {

void look_compact(const percodec::LatentCoder& coder, const std::uint8_t* data, std::size_t size) {
    fuzz::Bytes symbols(coder.symbols(), 255), others(coder.symbols(), 255);
    const auto status = coder.decode_compact(data, size, percodec::Kernel::scalar, symbols.data());
    for (const auto kernel : {percodec::Kernel::avx2, percodec::Kernel::avx512, percodec::Kernel::automatic}) {
        if (coder.decode_compact(data, size, kernel, others.data()) != status) std::abort();
        if (status == percodec::Status::ok && others != symbols) std::abort();
    }
    if (status != percodec::Status::ok) return;
    fuzz::Bytes buffer(coder.packet_bound());
    std::size_t again = 0;
    if (coder.encode_compact(symbols.data(), data[1], percodec::Kernel::automatic, buffer.data(), buffer.size(),
                             &again) != percodec::Status::ok ||
        fuzz::Bytes(buffer.end() - static_cast<std::ptrdiff_t>(again), buffer.end()) !=
            fuzz::Bytes(data, data + size)) {
        std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    for (const percodec::LatentCoder* coder : {&fuzz::plain(), &fuzz::with_contexts(), &fuzz::of_pairs()}) {
        percodec::PacketHeader header;
        fuzz::Bytes symbols(coder->symbols());
        const auto status = coder->decode(data, size, percodec::Kernel::automatic, symbols.data(), &header);
        if (status != percodec::Status::ok) continue;
        fuzz::Bytes buffer(coder->packet_bound());
        std::size_t again = 0;
        if (coder->encode(symbols.data(), &header, percodec::Kernel::automatic, buffer.data(), buffer.size(), &again) !=
            percodec::Status::ok) {
            std::abort();
        }
    }
    look_compact(fuzz::of_pairs(), data, size);
    return 0;
}
