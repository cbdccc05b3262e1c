// The world of the fake driver: memory, streams, events, graphs, and who happens before whom. See fake_cuda.cpp.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kSuccess = 0, kInvalid = 1, kOutOfMemory = 2, kNotFound = 500, kNotReady = 600, kCaptureUnsupported = 900,
              kCaptureInvalidated = 901, kCaptureUnjoined = 904, kUnknown = 999;
constexpr uint64_t kTag = 1ull << 52;  // on device addresses: far from anything the host maps

using Clock = std::map<int, uint64_t>;  // stream -> how many of its operations happened before

void join(Clock& into, const Clock& other) {
    for (auto [s, n] : other) into[s] = std::max(into[s], n);
}

struct Range { uint64_t address, bytes; };
struct Access { int stream; uint64_t seq; };
struct Allocation {
    std::string name;
    uint64_t bytes;
    Access writer{-1, 0};
    std::vector<Access> readers;
};
struct Op {
    std::function<void()> run;
    std::vector<Range> reads, writes;
    std::vector<Access> after;  // operations of other streams
    uint64_t seq = 0;
    int what = 0;
};
struct Event {
    Access at{-1, 0};
    Clock clock;
    double time_ms = 0;
    int capture = 0;       // recorded in this capture,
    size_t node = 0;       // after this node of it
};
struct Node { Op op; std::vector<size_t> after; };
struct Graph { std::vector<Node> nodes; };
struct Capture { int origin; std::shared_ptr<Graph> graph; std::map<int, std::vector<size_t>> tails; bool broken = false; std::thread::id thread; };
struct Stream {
    std::deque<Op> queue;
    uint64_t enqueued = 0, done = 0;
    Clock clock;
    int capture = 0, priority = 0;
    bool busy = false;
    std::vector<Access> wait;
};
struct Fault { int after; int code; };

struct World {
    std::recursive_mutex lock;
    std::mt19937_64 random{1};
    std::map<int, Stream> streams;
    std::map<int, Event> events;
    std::map<int, std::shared_ptr<Graph>> graphs;
    std::map<int, Capture> captures;
    std::map<uint64_t, Allocation> memory;  // by untagged address
    std::map<std::string, Fault> faults;
    std::map<std::string, uint64_t> calls;
    std::vector<std::string> violations;
    Clock host;
    double now_ms = 0;
    int next = 1000, sticky = 0, integrated = 0, hang = -1;
    uint64_t used = 0, total = 8ull << 30;
};

World& world() {
    static World w;
    return w;
}

uint64_t bare(uint64_t address) { return address & ~kTag; }
char* host(uint64_t address) { return reinterpret_cast<char*>(bare(address)); }

int enter(const char* call) {
    World& w = world();
    ++w.calls[call];
    if (w.sticky) return w.sticky;
    auto found = w.faults.find(call);
    if (found != w.faults.end() && found->second.after-- <= 0) {
        int code = found->second.code;
        if ((code >= 700 && code < 721) || code == 214 || code == 220 || code == kUnknown) w.sticky = code;
        else w.faults.erase(found);
        return code;
    }
    return kSuccess;
}

// -- happens-before ------------------------------------------------------------------------------------------------------------------

bool ordered(const Clock& clock, const Access& earlier) {
    if (earlier.stream < 0) return true;
    auto found = clock.find(earlier.stream);
    return found != clock.end() && found->second >= earlier.seq;
}

std::pair<const uint64_t, Allocation>* allocation(uint64_t address) {
    World& w = world();
    auto it = w.memory.upper_bound(bare(address));
    if (it == w.memory.begin()) return nullptr;
    --it;
    return bare(address) < it->first + it->second.bytes ? &*it : nullptr;
}

void violate(const std::string& text) {
    if (world().violations.size() < 100) world().violations.push_back(text);
}

void check(const Op& op, int stream, const Clock& clock) {
    auto complain = [&](const char* how, const Allocation& a, const Access& other) {
        violate(std::string(how) + " of " + a.name + " by operation " + std::to_string(op.seq) + " of stream " + std::to_string(stream) +
                " is not ordered after operation " + std::to_string(other.seq) + " of stream " + std::to_string(other.stream));
    };
    for (const Range& r : op.reads) {
        auto* found = allocation(r.address);
        if (!found) continue;
        if (!ordered(clock, found->second.writer)) complain("read", found->second, found->second.writer);
        found->second.readers.push_back({stream, op.seq});
    }
    for (const Range& r : op.writes) {
        auto* found = allocation(r.address);
        if (!found) continue;
        Allocation& a = found->second;
        if (!ordered(clock, a.writer)) complain("write", a, a.writer);
        for (const Access& reader : a.readers)
            if (!(reader.stream == stream && reader.seq == op.seq) && !ordered(clock, reader)) complain("write", a, reader);
        a.readers.clear();
        a.writer = {stream, op.seq};
    }
}

// -- queues --------------------------------------------------------------------------------------------------------------------------

uint64_t push(int id, Op op) {
    World& w = world();
    Stream& s = w.streams[id];
    if (s.capture) {
        Capture& c = w.captures[s.capture];
        size_t index = c.graph->nodes.size();
        c.graph->nodes.push_back({std::move(op), c.tails[id]});
        c.tails[id] = {index};
        return 0;
    }
    op.seq = ++s.enqueued;
    op.after.insert(op.after.end(), s.wait.begin(), s.wait.end());
    s.wait.clear();
    join(s.clock, w.host);
    s.clock[id] = op.seq;
    check(op, id, s.clock);
    uint64_t seq = op.seq;
    s.queue.push_back(std::move(op));
    return seq;
}

bool complete(const Access& a) { return a.stream < 0 || !world().streams.count(a.stream) || world().streams[a.stream].done >= a.seq; }

// Runs one operation that may run now. False: none may.
bool step(std::unique_lock<std::recursive_mutex>& hold) {
    World& w = world();
    std::vector<int> ready;
    for (auto& [id, s] : w.streams)
        if (!s.busy && !s.queue.empty() && std::all_of(s.queue.front().after.begin(), s.queue.front().after.end(), complete)) ready.push_back(id);
    if (ready.empty()) return false;
    int id = ready[w.random() % ready.size()];
    Stream& s = w.streams[id];
    Op op = std::move(s.queue.front());
    s.queue.pop_front();
    s.busy = true;
    w.now_ms += 0.01 + 0.001 * double(w.random() % 100);
    hold.unlock();
    if (op.run) op.run();
    hold.lock();
    Stream& after = w.streams[id];
    after.busy = false;
    after.done = op.seq;
    return true;
}

bool anyone_busy() {
    for (auto& [id, s] : world().streams)
        if (s.busy) return true;
    return false;
}

int run_until(std::unique_lock<std::recursive_mutex>& hold, const std::function<bool()>& reached) {
    while (!reached()) {
        if (world().sticky) return world().sticky;
        if (step(hold)) continue;
        if (!anyone_busy()) {
            violate("deadlock: a wait for work that nothing can start");
            return kUnknown;
        }
        hold.unlock();
        std::this_thread::yield();
        hold.lock();
    }
    return kSuccess;
}

void wander(std::unique_lock<std::recursive_mutex>& hold) {  // now and then the device is ahead of the host
    if (world().random() % 4 == 0)
        for (uint64_t n = world().random() % 4; n; --n)
            if (!step(hold)) break;
}

}  // namespace
