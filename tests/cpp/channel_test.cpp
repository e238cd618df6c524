#include "channel.h"

#include <poll.h>

#include <thread>

#include "test.h"

namespace inferno {
namespace {

bool readable(int fd) {
    pollfd item{fd, POLLIN, 0};
    return poll(&item, 1, 0) == 1;
}

std::vector<Event> one_event(RequestId id) {
    std::vector<Event> events;
    events.emplace_back(Delta{id, "x", 1, {}});
    return events;
}

TEST(the_descriptor_is_readable_exactly_while_events_wait) {
    Channel channel;
    CHECK(!readable(channel.fd()));
    channel.push(one_event(1));
    channel.push(one_event(2));
    CHECK(readable(channel.fd()));
    CHECK_EQ(channel.drain().size(), size_t{2});
    CHECK(!readable(channel.fd()));
    CHECK(channel.drain().empty());
}

TEST(nothing_is_lost_between_threads) {
    Channel     channel;
    std::thread producer([&] {
        for (RequestId id = 0; id < 1000; ++id) {
            channel.push(one_event(id));
        }
    });
    size_t      n = 0;
    while (n < 1000) {
        channel.wait(std::chrono::seconds(10));
        for (const Event & event : channel.drain()) {
            CHECK_EQ(std::get<Delta>(event).id, n++);
        }
    }
    producer.join();
}

TEST(waiting_for_nothing_ends) {
    Channel channel;
    CHECK(!channel.wait(std::chrono::milliseconds(1)));
}

}  // namespace
}  // namespace inferno
