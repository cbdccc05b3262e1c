// Any bytes as a packet: refused, or decoded to symbols that code to a packet of the same content again.
#include "tables.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    for (const percodec::LatentCoder* coder :
         {&fuzz::plain(), &fuzz::with_contexts(), &fuzz::of_pairs(), &fuzz::of_steps()}) {
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
    return 0;
}
