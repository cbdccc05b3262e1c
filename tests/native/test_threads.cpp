// Coders are shared by threads: four of them open, encode and decode at once, and all get the frozen bytes. Built with
// -fsanitize=thread, this is what finds a race. Arguments: the folder of the golden packets; "fork": children that are
// made meanwhile can code, too.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "percodec/entropy_model.hpp"
#include "percodec/latent_statistics.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr int kThreads = 4, kRounds = 20, kChildren = 200;
constexpr std::size_t kBeforeSteps = 12;  // the fixed header of an entropy model

void check(bool condition, const std::string& what) {
    if (condition) return;
    std::fprintf(stderr, "not true: %s\n", what.c_str());
    std::_Exit(1);
}

Bytes read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    check(file.good(), "can be read: " + path);
    return Bytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

struct Case {
    Case(const std::string& stem, std::uint32_t height, std::uint32_t width)
        : model(read(stem + ".pcem")),
          packet(read(stem + ".packet")),
          symbols(read(stem + ".symbols")),
          shared(percodec::EntropyModel(model.data(), model.size()).coder(height, width)) {}

    void code(const percodec::LatentCoder& coder, percodec::Kernel kernel) const {
        const std::size_t before = std::size_t{coder.planes() - coder.channels()} * coder.height() * coder.width();
        Bytes decoded(symbols.begin(), symbols.begin() + static_cast<std::ptrdiff_t>(before));
        decoded.resize(symbols.size());
        percodec::PacketHeader header;
        check(coder.decode(packet.data(), packet.size(), kernel, decoded.data(), &header) == percodec::Status::ok,
              "decodes");
        check(decoded == symbols, "decodes to the frozen symbols");
        Bytes buffer(coder.packet_bound());
        std::size_t size = 0;
        check(
            coder.encode(symbols.data(), &header, kernel, buffer.data(), buffer.size(), &size) == percodec::Status::ok,
            "encodes");
        check(Bytes(buffer.end() - static_cast<std::ptrdiff_t>(size), buffer.end()) == packet,
              "encodes to the frozen bytes");
    }

    void count() const {
        std::vector<std::uint32_t> counts(std::size_t{shared.planes()} * 258);
        percodec::latent_statistics(symbols.data(), shared.planes(), shared.height(), shared.width(), 256,
                                    counts.data());
    }

    const Bytes model, packet, symbols;
    const percodec::LatentCoder shared;
};

// A child has one thread; what another held as the child was made, stays held there.
void forks(const Case& steps) {
    const percodec::EntropyModel model(steps.model.data(), steps.model.size());
    percodec::StepRooms rooms(percodec::StepTables(steps.model.data() + kBeforeSteps, steps.model.size() - kBeforeSteps,
                                                   model.channels(), model.levels(), false),
                              steps.shared.height(), steps.shared.width());
    std::atomic<bool> done{false};
    std::vector<std::thread> threads;
    for (int k = 0; k < kThreads; ++k) {
        threads.emplace_back([&] {
            while (!done) rooms.give(rooms.take());
        });
    }
    for (int k = 0; k < kChildren; ++k) {
        const pid_t child = fork();
        check(child >= 0, "there is a child");
        if (child == 0) {
            alarm(30);
            rooms.give(rooms.take());
            std::_Exit(0);
        }
        int status = 0;
        check(waitpid(child, &status, 0) == child && status == 0, "a child that is made meanwhile goes on");
    }
    done = true;
    for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main(int count, char** arguments) {
    check(count == 2 || count == 3, "one argument, the folder of the golden packets, and perhaps: fork");
    const std::string folder = std::string(arguments[1]) + "/v1.0-";
    const std::vector<Case> cases = [&] {
        std::vector<Case> made;
        made.emplace_back(folder + "order0-8x14x14-L6-auto", 14, 14);
        made.emplace_back(folder + "contexts-5x7x70-L6-auto", 7, 70);
        made.emplace_back(folder + "temporal-3x6x90-L6-K16-lanes32", 6, 90);
        made.emplace_back(folder + "pairs-2x9x31-L8-lanes64", 9, 31);
        made.emplace_back(folder + "steps-temporal-6x9x21-lanes16", 9, 21);
        made.emplace_back(folder + "steps-6x9x21-lanes16", 9, 21);
        return made;
    }();
    std::atomic<int> waiting{kThreads};
    std::vector<std::thread> threads;
    for (int k = 0; k < kThreads; ++k) {
        threads.emplace_back([&] {
            for (--waiting; waiting > 0;) std::this_thread::yield();  // all begin at once
            for (int round = 0; round < kRounds; ++round) {
                for (const Case& one : cases) {
                    one.code(one.shared, round % 2 ? percodec::Kernel::scalar : percodec::Kernel::automatic);
                    one.count();
                }
            }
            for (const Case& one : cases) {
                const percodec::EntropyModel model(one.model.data(), one.model.size());
                one.code(model.coder(one.shared.height(), one.shared.width()), percodec::Kernel::automatic);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    if (count == 3) forks(cases.back());
    std::puts("threads: all right");
    return 0;
}
