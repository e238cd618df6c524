#include "engine.h"

#include <limits>
#include <map>
#include <random>
#include <thread>

#include "fake_model.h"
#include "test.h"

#ifdef __linux__
#include <sched.h>
#endif

namespace inferno {
namespace {

using testing::FakeModel;

SamplingParams greedy(int32_t max_tokens) {
    SamplingParams params;
    params.temperature    = 0;
    params.repeat_penalty = 1;
    params.max_tokens     = max_tokens;
    return params;
}

struct Output {
    std::string         text;
    std::vector<Finish> ends;
};

// An engine over a FakeModel, and everything it has said so far.
class Fixture {
public:
    explicit Fixture(int32_t parallel = 4, int32_t context_size = 256, EngineOptions options = {})
        : model(std::make_shared<FakeModel>(parallel, context_size)), engine(model, options) {}

    RequestId submit(const std::string & prompt, SamplingParams params, int32_t priority = 0,
                     std::optional<double> timeout_s = std::nullopt) {
        const std::vector<Token> tokens = model->vocabulary().tokenize(prompt, false, false);
        return engine.submit({{tokens, std::move(params), priority, timeout_s, 0}})[0];
    }

    void drain() {
        for (Event & event : engine.events().drain()) {
            if (auto * delta = std::get_if<Delta>(&event)) {
                outputs[delta->id].text += delta->text;
                CHECK(outputs[delta->id].ends.empty());
            } else {
                Finish & end = std::get<Finish>(event);
                outputs[end.id].ends.push_back(std::move(end));
            }
        }
    }

    // Waits for the end of `id`.
    const Output & wait(RequestId id) {
        while (outputs[id].ends.empty()) {
            engine.events().wait(std::chrono::seconds(10));
            drain();
        }
        return outputs[id];
    }

    std::shared_ptr<FakeModel>  model;
    Engine                      engine;
    std::map<RequestId, Output> outputs;
};

TEST(a_text_is_generated_and_ends_once) {
    Fixture        fixture;
    const Output & output = fixture.wait(fixture.submit("hello", greedy(20)));
    CHECK_EQ(output.text, FakeModel::expected("hello", 20));
    CHECK(output.ends[0].reason == FinishReason::length);
    CHECK_EQ(output.ends[0].usage.prompt_tokens, 5);
    CHECK_EQ(output.ends[0].usage.completion_tokens, 20);
    CHECK(fixture.model->valid());
}

#ifdef __linux__
// All on one processor: who waits for events runs as soon as there are some, and the engine goes on after that.
class OneProcessor {
public:
    OneProcessor() {
        sched_getaffinity(0, sizeof(before_), &before_);
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        sched_setaffinity(0, sizeof(one), &one);
    }
    ~OneProcessor() { sched_setaffinity(0, sizeof(before_), &before_); }

private:
    cpu_set_t before_;
};

TEST(who_has_seen_the_end_of_a_text_does_not_find_it_running) {
    const OneProcessor pinned;
    Fixture            fixture;
    for (int round = 0; round < 500; ++round) {
        fixture.wait(fixture.submit("hello", greedy(1)));
        CHECK_EQ(fixture.engine.stats().running, 0);
        CHECK_EQ(fixture.engine.stats().waiting, 0);
    }
}
#endif

TEST(work_shows_before_its_first_step_has_ended) {
    Fixture fixture(2);
    fixture.model->close_gate();
    const RequestId first = fixture.submit("first", greedy(2));
    fixture.model->wait_for_step();
    CHECK_EQ(fixture.engine.stats().running, 1);
    CHECK_EQ(fixture.engine.stats().waiting, 0);
    const RequestId second = fixture.submit("second", greedy(2));
    CHECK_EQ(fixture.engine.stats().waiting, 1);
    fixture.model->open_gate();
    fixture.wait(first);
    fixture.wait(second);
}

TEST(embeddings_show_while_they_are_computed) {
    Fixture fixture;
    fixture.model->close_gate();
    const RequestId id = fixture.engine.submit_embeddings({{{1, 2, 3}, 0, std::nullopt}})[0];
    fixture.model->wait_for_step();
    CHECK_EQ(fixture.engine.stats().waiting, 1);
    fixture.model->open_gate();
    fixture.wait(id);
    CHECK_EQ(fixture.engine.stats().waiting, 0);
}

TEST(an_embedding_that_close_cuts_short_is_cancelled) {
    Fixture fixture;
    fixture.model->close_gate();
    const RequestId id = fixture.engine.submit_embeddings({{{1, 2, 3}, 0, std::nullopt}})[0];
    fixture.model->wait_for_step();
    fixture.engine.close(0);
    CHECK(fixture.wait(id).ends[0].reason == FinishReason::cancelled);
}

TEST(a_grace_without_end_is_one) {
    Fixture fixture;
    fixture.model->close_gate();
    const RequestId id = fixture.submit("hello", greedy(20));
    fixture.model->wait_for_step();
    std::thread closer([&] { fixture.engine.close(std::numeric_limits<double>::infinity()); });
    fixture.model->step();
    fixture.model->open_gate();
    CHECK(fixture.wait(id).ends[0].reason == FinishReason::length);
    closer.join();
}

TEST(a_grammar_is_followed_and_its_end_ends_the_text) {
    Fixture        fixture;
    SamplingParams params = greedy(50);
    params.grammar        = "root ::= [a-m]{3} \"-\" [n-z]*";
    const RequestId open  = fixture.submit("hello", params);
    params.grammar        = "root ::= [a-m]{3} \"-\"";
    params.ignore_eos     = true;  // nothing else may follow either
    params.min_tokens     = 20;
    const RequestId shut  = fixture.submit("hello", params);
    const Output &  none = fixture.wait(fixture.submit("hello", greedy(20)));
    CHECK_EQ(none.text, FakeModel::expected("hello", 20));
    const Output & whole = fixture.wait(shut);
    CHECK_EQ(whole.text.size(), size_t{4});
    CHECK_EQ(whole.text[3], '-');
    CHECK(whole.ends[0].reason == FinishReason::stop);
    CHECK_EQ(whole.ends[0].usage.completion_tokens, 4);
    CHECK_EQ(fixture.wait(open).text.substr(0, 4), whole.text);
}

TEST(a_text_that_its_grammar_cannot_end_is_cut_at_the_limit) {
    Fixture        fixture;
    SamplingParams params   = greedy(10);
    params.json_schema.text = R"({"type": "array", "items": {"type": "integer"}, "minItems": 30})";
    const Output & output   = fixture.wait(fixture.submit("hello", params));
    CHECK(output.ends[0].reason == FinishReason::length);
    CHECK_EQ(output.text[0], '[');
}

TEST(an_ambiguous_grammar_ends_its_own_text_only) {
    Fixture        fixture;
    SamplingParams params    = greedy(200);
    params.grammar           = "root ::= ([a-z]{1,300} | [a-y]{1,299}){1,300} \"!\"";
    const RequestId ambiguous = fixture.submit("hello", params);
    const RequestId plain     = fixture.submit("hello", greedy(100));
    CHECK_EQ(fixture.wait(plain).text, FakeModel::expected("hello", 100));
    const Output & output = fixture.wait(ambiguous);
    CHECK(output.ends[0].reason == FinishReason::error);
    CHECK(output.ends[0].error_code == ErrorCode::invalid_request);
}

TEST(a_grammar_that_cannot_be_read_is_refused_at_once) {
    Fixture        fixture;
    SamplingParams params = greedy(10);
    params.grammar        = "root ::= (";
    CHECK_THROWS(fixture.submit("hello", params), Error);
}

TEST(many_texts_at_once_equal_each_alone) {
    Fixture                          fixture(4);
    std::map<RequestId, std::string> prompts;
    for (int i = 0; i < 40; ++i) {
        const std::string prompt = "prompt number " + std::to_string(i) + std::string(static_cast<size_t>(i), 'x');
        prompts[fixture.submit(prompt, greedy(1 + i % 17))] = prompt;
    }
    int i = 0;
    for (const auto & [id, prompt] : prompts) {
        CHECK_EQ(fixture.wait(id).text, FakeModel::expected(prompt, 1 + i++ % 17));
    }
    CHECK(fixture.model->valid());
}

TEST(a_follow_up_computes_only_what_is_new) {
    Fixture           fixture;
    const std::string first  = std::string(100, 'p');
    const std::string answer = fixture.wait(fixture.submit(first, greedy(10))).text;
    const size_t      before = fixture.model->n_rows();
    const Output &    second = fixture.wait(fixture.submit(first + answer + "more", greedy(1)));
    // The last token of the answer was never computed, so it comes with the new ones.
    CHECK_EQ(second.ends[0].usage.cached_tokens, 109);
    CHECK_EQ(fixture.model->n_rows() - before, size_t{5});
    CHECK_EQ(second.text, FakeModel::expected(first + answer + "more", 1));
}

TEST(a_burst_with_a_common_head_computes_it_once_and_says_so) {
    Fixture           fixture(4, 256);
    const std::string head(150, 'h');
    fixture.model->close_gate();
    std::map<RequestId, std::string> prompts;
    const RequestId first = fixture.submit(head + "0", greedy(3));
    fixture.model->wait_for_step();
    for (int i = 1; i < 8; ++i) {
        const std::string prompt = head + std::to_string(i);
        prompts[fixture.submit(prompt, greedy(3))] = prompt;
    }
    fixture.model->open_gate();
    CHECK_EQ(fixture.wait(first).text, FakeModel::expected(head + "0", 3));
    for (const auto & [id, prompt] : prompts) {
        const Output & output = fixture.wait(id);
        CHECK_EQ(output.text, FakeModel::expected(prompt, 3));
        CHECK_EQ(output.ends[0].usage.cached_tokens, 150);
    }
    CHECK_EQ(fixture.model->n_rows(), size_t{150 + 8 * 3});
    CHECK(fixture.model->valid());
}

TEST(prefixes_that_lost_their_slot_come_back) {
    EngineOptions options;
    options.prefix_store_mb = 1;
    Fixture           fixture(2, 512, options);
    const std::string names = "abcdef";
    for (int round = 0; round < 3; ++round) {
        for (const char name : names) {
            const std::string prompt = std::string(200, name) + std::to_string(round);
            const Output &    output = fixture.wait(fixture.submit(prompt, greedy(5)));
            CHECK_EQ(output.text, FakeModel::expected(prompt, 5));
            CHECK_EQ(output.ends[0].usage.cached_tokens, round == 0 ? 0 : 192);
        }
    }
    const EngineStats stats = fixture.engine.stats();
    CHECK_EQ(stats.fetched_tokens_total, uint64_t{2 * 6 * 192});
    CHECK(stats.stored_bytes >= 4 * 192 * sizeof(Token));
    CHECK(fixture.model->valid());
}

TEST(a_failed_step_leaves_nothing_wrong_in_the_store) {
    Fixture           fixture(1, 512);
    const std::string first(200, 'a');
    fixture.wait(fixture.submit(first, greedy(2)));
    fixture.model->close_gate();
    const RequestId second = fixture.submit(std::string(200, 'b'), greedy(2));
    fixture.model->wait_for_step();
    fixture.model->fail_next();
    fixture.model->open_gate();
    CHECK_EQ(fixture.wait(second).text, FakeModel::expected(std::string(200, 'b'), 2));
    const Output & again = fixture.wait(fixture.submit(first + "more", greedy(2)));
    CHECK_EQ(again.text, FakeModel::expected(first + "more", 2));
    CHECK_EQ(again.ends[0].usage.cached_tokens, 0);
}

TEST(a_leader_that_is_cancelled_leaves_what_it_has_computed) {
    Fixture           fixture(4, 512);
    const std::string head(300, 'h');
    fixture.model->close_gate();
    const RequestId leader = fixture.submit(head + "0", greedy(3));
    fixture.model->wait_for_step();
    const RequestId follower = fixture.submit(head + "1", greedy(3));
    fixture.model->step();
    fixture.model->step();
    fixture.engine.cancel({leader});
    fixture.model->open_gate();
    CHECK_EQ(fixture.wait(follower).text, FakeModel::expected(head + "1", 3));
    CHECK(fixture.outputs[follower].ends[0].usage.cached_tokens >= 64);
    CHECK(fixture.wait(leader).ends[0].reason == FinishReason::cancelled);
    CHECK(fixture.model->valid());
}

TEST(random_bursts_with_common_heads_equal_each_alone) {
    std::mt19937  random(3);
    EngineOptions options;
    options.prefix_store_mb = 1;
    Fixture fixture(3, 512, options);
    for (int round = 0; round < 20; ++round) {
        std::map<RequestId, std::string> prompts;
        std::vector<RequestId>           cancelled;
        for (int i = 0; i < 12; ++i) {
            const std::string prompt = std::string(random() % 3 * 90, 'h') + std::string(random() % 150, 'o') +
                                       std::to_string(random() % 3);
            const RequestId id = fixture.submit(prompt, greedy(4), static_cast<int32_t>(random() % 2));
            if (random() % 4 == 0) {
                cancelled.push_back(id);
                fixture.engine.cancel({id});
            } else {
                prompts[id] = prompt;
            }
        }
        for (const auto & [id, prompt] : prompts) {
            CHECK_EQ(fixture.wait(id).text, FakeModel::expected(prompt, 4));
        }
        for (const RequestId id : cancelled) {
            CHECK_EQ(fixture.wait(id).ends.size(), size_t{1});
        }
    }
    CHECK(fixture.model->valid());
}

// With `n` texts that repeat themselves, some of them at once.
void check_guessed_texts(int n, int32_t draft_tokens) {
    EngineOptions options;
    options.draft_tokens = draft_tokens;
    Fixture fixture(4, 256, options);
    fixture.model->loop();
    std::vector<std::pair<std::string, RequestId>> texts;
    for (int i = 0; i < n; ++i) {
        const std::string prompt = "text " + std::to_string(i);
        texts.emplace_back(prompt, fixture.submit(prompt, greedy(40 + 13 * i)));
    }
    for (int i = 0; i < n; ++i) {
        const auto & [prompt, id] = texts[static_cast<size_t>(i)];
        CHECK_EQ(fixture.wait(id).text, FakeModel::expected(prompt, 40 + 13 * i, FakeModel::next_looping));
        CHECK_EQ(fixture.outputs[id].ends[0].usage.completion_tokens, 40 + 13 * i);
    }
    const EngineStats stats = fixture.engine.stats();
    CHECK(stats.drafted_tokens_total == 0 || draft_tokens > 0);
    CHECK(stats.accepted_tokens_total <= stats.drafted_tokens_total);
    CHECK(fixture.model->valid());
    // What the cache says it holds is what it holds, also after texts that ended within a guess.
    for (const auto & [prompt, id] : texts) {
        const std::string more = prompt + fixture.outputs[id].text + "!";
        CHECK_EQ(fixture.wait(fixture.submit(more, greedy(9))).text,
                 FakeModel::expected(more, 9, FakeModel::next_looping));
    }
    CHECK(fixture.model->valid());
}

TEST(guessed_texts_are_the_same) {
    for (const int n : {1, 2, 4, 7}) {
        for (const int32_t draft_tokens : {0, 1, 3, 8, 32}) {
            check_guessed_texts(n, draft_tokens);
        }
    }
}

TEST(guesses_save_steps) {
    Fixture fixture(1, 1024);
    fixture.model->loop();
    fixture.wait(fixture.submit("hello", greedy(600)));
    CHECK(fixture.engine.stats().accepted_tokens_total > 0);  // at least those that are tried once in a while
    CHECK_EQ(fixture.model->n_calls() + fixture.engine.stats().accepted_tokens_total, size_t{600});
}

TEST(a_text_that_ends_within_a_guess_ends_there) {
    Fixture           fixture(1, 256);
    const std::string looped = FakeModel::expected("hello", 60, FakeModel::next_looping);
    fixture.model->loop();
    SamplingParams params = greedy(60);
    params.stop           = {looped.substr(47, 4)};
    const Output & output = fixture.wait(fixture.submit("hello", params));
    CHECK_EQ(output.text, looped.substr(0, looped.find(params.stop[0])));
    CHECK(output.ends[0].reason == FinishReason::stop);
    const std::string more = "hello" + output.text + "?";
    CHECK_EQ(fixture.wait(fixture.submit(more, greedy(20))).text, FakeModel::expected(more, 20, FakeModel::next_looping));
    CHECK(fixture.model->valid());
}

TEST(steps_with_guesses_fail_and_find_no_room_like_others) {
    Fixture fixture(2, 256);
    fixture.model->loop();
    fixture.model->set_capacity(230);  // one text and its guesses, not two
    fixture.model->close_gate();
    const RequestId other = fixture.submit("another text", greedy(200));
    const RequestId id    = fixture.submit("hello", greedy(200));
    fixture.model->wait_for_step();
    for (int i = 0; i < 20; ++i) {
        fixture.model->step();
    }
    fixture.model->fail_next();
    fixture.model->open_gate();
    CHECK_EQ(fixture.wait(id).text, FakeModel::expected("hello", 200, FakeModel::next_looping));
    CHECK_EQ(fixture.wait(other).text, FakeModel::expected("another text", 200, FakeModel::next_looping));
    CHECK(fixture.engine.stats().preemptions_total > 0);
    CHECK(fixture.model->valid());
}

TEST(a_full_cache_preempts_and_fails_nobody) {
    Fixture fixture(4, 256);
    fixture.model->set_capacity(120);
    fixture.model->close_gate();
    std::map<RequestId, std::string> prompts;
    for (int i = 0; i < 6; ++i) {
        const std::string prompt = "text " + std::to_string(i);
        prompts[fixture.submit(prompt, greedy(60))] = prompt;
    }
    fixture.model->wait_for_step();
    fixture.model->open_gate();
    for (const auto & [id, prompt] : prompts) {
        const Output & output = fixture.wait(id);
        CHECK(output.ends[0].reason == FinishReason::length);
        CHECK_EQ(output.text, FakeModel::expected(prompt, 60));
    }
    CHECK(fixture.engine.stats().preemptions_total > 0);
    CHECK(fixture.model->valid());
}

TEST(a_text_that_alone_exceeds_the_cache_fails_alone) {
    Fixture fixture(2, 256);
    fixture.model->set_capacity(30);
    const RequestId too_long = fixture.submit("abc", greedy(100));
    CHECK(fixture.wait(too_long).ends[0].reason == FinishReason::error);
    CHECK(fixture.wait(fixture.submit("abc", greedy(5))).ends[0].reason == FinishReason::length);
}

TEST(a_failed_step_is_repeated) {
    Fixture fixture;
    fixture.model->close_gate();
    const RequestId id = fixture.submit("hello", greedy(8));
    fixture.model->wait_for_step();
    fixture.model->fail_next();
    fixture.model->open_gate();
    CHECK_EQ(fixture.wait(id).text, FakeModel::expected("hello", 8));
}

TEST(a_bug_in_the_engine_thread_ends_every_text_and_shows) {
    Fixture fixture;
    fixture.model->close_gate();
    const RequestId first  = fixture.submit("first", greedy(8));
    const RequestId second = fixture.submit("second", greedy(8));
    fixture.model->wait_for_step();
    fixture.model->throw_next();
    fixture.model->open_gate();
    CHECK(fixture.wait(first).ends[0].reason == FinishReason::error);
    CHECK(fixture.wait(second).ends[0].reason == FinishReason::error);
    CHECK_THROWS(fixture.engine.stats(), Error);
    CHECK_THROWS(fixture.submit("third", greedy(8)), Error);
}

TEST(cancelling_cuts_a_running_step_short) {
    Fixture fixture;
    fixture.model->close_gate();
    const RequestId id = fixture.submit("hello", greedy(50));
    fixture.model->wait_for_step();
    fixture.engine.cancel({id});  // the gate stays closed: only the abort lets the step end
    CHECK(fixture.wait(id).ends[0].reason == FinishReason::cancelled);
}

TEST(cancelling_one_leaves_its_neighbour_alone) {
    Fixture fixture;
    fixture.model->close_gate();
    const RequestId stays = fixture.submit("stays", greedy(30));
    fixture.model->wait_for_step();
    const RequestId goes = fixture.submit("goes", greedy(30));
    fixture.engine.cancel({goes});
    fixture.model->open_gate();
    CHECK(fixture.wait(goes).ends[0].reason == FinishReason::cancelled);
    CHECK_EQ(fixture.wait(stays).text, FakeModel::expected("stays", 30));
}

TEST(a_deadline_that_has_passed_ends_the_text) {
    Fixture fixture;
    fixture.model->close_gate();
    const RequestId blocker = fixture.submit("blocker", greedy(5));
    fixture.model->wait_for_step();
    const RequestId late = fixture.submit("late", greedy(5), 0, 1e-9);
    fixture.model->open_gate();
    CHECK(fixture.wait(late).ends[0].reason == FinishReason::timeout);
    CHECK(fixture.wait(blocker).ends[0].reason == FinishReason::length);
}

TEST(deadlines_count_in_the_queue) {
    EngineOptions options;
    options.queue_size = 5000;
    Fixture fixture(1, 64, options);
    fixture.model->close_gate();
    const RequestId blocker = fixture.submit("blocker", greedy(30));
    fixture.model->wait_for_step();
    std::vector<RequestId> late;
    for (int i = 0; i < 3000; ++i) {
        late.push_back(fixture.submit("late", greedy(30), 0, 1e-9));
    }
    const RequestId patient = fixture.submit("patient", greedy(3), 0, 1000.0);
    fixture.model->step();
    fixture.model->open_gate();
    for (const RequestId id : late) {
        CHECK(fixture.wait(id).ends[0].reason == FinishReason::timeout);
    }
    CHECK(fixture.wait(blocker).ends[0].reason == FinishReason::length);
    CHECK(fixture.wait(patient).ends[0].reason == FinishReason::length);
}

TEST(a_full_queue_refuses_all_or_nothing) {
    EngineOptions options;
    options.queue_size = 2;
    Fixture fixture(1, 64, options);
    fixture.model->close_gate();
    fixture.submit("a", greedy(5));
    const GenerationSpec spec{{'b'}, greedy(5), 0, std::nullopt, 0};
    CHECK_THROWS(fixture.engine.submit({spec, spec, spec}), Error);
    CHECK_EQ(fixture.engine.submit({spec, spec}).size(), size_t{2});
    CHECK_THROWS(fixture.engine.submit({spec}), Error);
    fixture.model->open_gate();
}

TEST(bad_requests_are_refused_before_they_are_accepted) {
    Fixture              fixture(1, 64);
    const auto           submit = [&](GenerationSpec spec) { fixture.engine.submit({std::move(spec)}); };
    const GenerationSpec good{{'a'}, greedy(5), 0, std::nullopt, 0};
    GenerationSpec       bad = good;
    bad.prompt.clear();
    CHECK_THROWS((submit(bad), 0), Error);
    bad.prompt = {9999};
    CHECK_THROWS((submit(bad), 0), Error);
    bad.prompt.assign(64, 'a');
    CHECK_THROWS((submit(bad), 0), Error);
    bad                    = good;
    bad.params.temperature = 99;
    CHECK_THROWS((submit(bad), 0), Error);
}

TEST(a_prompt_that_leaves_one_position_gives_one_token) {
    Fixture           fixture(1, 64);
    const std::string prompt(63, 'a');
    CHECK_EQ(fixture.wait(fixture.submit(prompt, greedy(100))).text, FakeModel::expected(prompt, 1));
}

TEST(closing_with_grace_lets_texts_finish) {
    Fixture         fixture;
    const RequestId id = fixture.submit("hello", greedy(40));
    fixture.engine.close(10);
    fixture.drain();
    CHECK_EQ(fixture.outputs[id].text, FakeModel::expected("hello", 40));
    CHECK_THROWS(fixture.submit("more", greedy(1)), Error);
}

TEST(closing_at_once_ends_every_text_exactly_once) {
    Fixture fixture(2);
    fixture.model->close_gate();
    std::vector<RequestId> ids;
    for (int i = 0; i < 5; ++i) {
        ids.push_back(fixture.submit("text", greedy(40)));
    }
    fixture.engine.close(0);
    fixture.drain();
    for (const RequestId id : ids) {
        CHECK_EQ(fixture.outputs[id].ends.size(), size_t{1});
        CHECK(fixture.outputs[id].ends[0].reason == FinishReason::cancelled);
    }
}

TEST(submitting_cancelling_and_closing_from_many_threads_loses_nothing) {
    auto                     model = std::make_shared<FakeModel>(4, 128);
    Engine                   engine(model, {});
    std::atomic<int>         accepted{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 50; ++i) {
                try {
                    const auto ids = engine.submit({{{'a', 'b'}, greedy(10), 0, std::nullopt, 0}});
                    accepted += 1;
                    if (i % 3 == 0) {
                        engine.cancel(ids);
                    }
                    engine.stats();
                } catch (const Error &) {
                    return;  // closed
                }
            }
        });
    }
    for (auto & thread : threads) {
        thread.join();
    }
    engine.close(0);
    int ended = 0;
    for (const Event & event : engine.events().drain()) {
        ended += std::holds_alternative<Finish>(event) ? 1 : 0;
    }
    CHECK_EQ(ended, accepted.load());
}

TEST(stop_texts_are_held_back_and_left_out) {
    Fixture           fixture;
    const std::string full   = FakeModel::expected("hello", 20);
    SamplingParams    params = greedy(20);
    params.stop              = {full.substr(5, 3)};
    const Output & output    = fixture.wait(fixture.submit("hello", params));
    CHECK_EQ(output.text, full.substr(0, full.find(params.stop[0])));
    CHECK(output.ends[0].reason == FinishReason::stop);
    CHECK_EQ(output.ends[0].stop_match, params.stop[0]);
}

TEST(log_probabilities_cover_the_text_and_no_more) {
    Fixture           fixture;
    const std::string full   = FakeModel::expected("hello", 20);
    SamplingParams    params = greedy(20);
    params.stop              = {full.substr(5, 3)};
    params.logprobs          = 1;
    const RequestId id       = fixture.submit("hello", params);
    std::string     bytes;
    bool            ended = false;
    while (!ended) {
        fixture.engine.events().wait(std::chrono::seconds(10));
        for (const Event & event : fixture.engine.events().drain()) {
            ended = ended || std::holds_alternative<Finish>(event);
            if (const auto * delta = std::get_if<Delta>(&event)) {
                CHECK_EQ(delta->id, id);
                for (const TokenLogprob & token : delta->logprobs) {
                    bytes += token.bytes;
                    CHECK(token.logprob <= 0);
                }
            }
        }
    }
    CHECK_EQ(bytes, full.substr(0, full.find(params.stop[0])));
}

TEST(an_embedding_can_be_cancelled_and_can_be_late) {
    Fixture fixture;
    fixture.model->close_gate();
    fixture.submit("blocker", greedy(3));
    fixture.model->wait_for_step();
    const auto ids = fixture.engine.submit_embeddings(
        {{{'a'}, 0, std::nullopt}, {{'a', 'b'}, 5, 1e-9}, {{'a', 'b', 'c'}, 3, 1000.0}});
    fixture.engine.cancel({ids[0]});
    fixture.model->open_gate();
    CHECK(fixture.wait(ids[0]).ends[0].reason == FinishReason::cancelled);
    CHECK(fixture.wait(ids[1]).ends[0].reason == FinishReason::timeout);
    CHECK_EQ(fixture.wait(ids[2]).ends[0].embedding[0], 3.0f);
}

TEST(embeddings_are_packed_within_the_batch) {
    Fixture                    fixture;
    std::vector<EmbeddingSpec> specs;
    for (int i = 1; i <= 10; ++i) {
        specs.push_back({std::vector<Token>(static_cast<size_t>(i), 'a'), 0, std::nullopt});
    }
    const std::vector<RequestId> ids = fixture.engine.submit_embeddings(specs);
    for (size_t i = 0; i < ids.size(); ++i) {
        CHECK_EQ(fixture.wait(ids[i]).ends[0].embedding[0], static_cast<float>(i + 1));
    }
    CHECK(fixture.model->largest_embedding_batch() > 1);
    CHECK(fixture.model->largest_embedding_batch() < 10);
}

}  // namespace
}  // namespace inferno
