#include "draft_model.h"

#include "engine.h"
#include "fake_model.h"
#include "test.h"

namespace inferno {
namespace {

using testing::FakeModel;

Sequence text(RequestId id, size_t n) {
    Sequence sequence(id, std::vector<Token>(n, 'a' + static_cast<Token>(id)), SamplingParams{});
    for (size_t i = 0; i < n; i += 3) {
        sequence.tokens[i] = 'x';
    }
    return sequence;
}

// What the model itself would say next.
std::vector<Token> expected(const Sequence & sequence, int n) {
    std::vector<Token> history = sequence.tokens, result;
    for (int i = 0; i < n; ++i) {
        result.push_back(FakeModel::next(history));
        history.push_back(result.back());
    }
    return result;
}

class Fixture {
public:
    explicit Fixture(int32_t parallel = 2, int32_t batch_size = 64)
        : model(new FakeModel(parallel, 1024, batch_size)), drafter(std::unique_ptr<Model>(model)) {}

    FakeModel * model;
    DraftModel  drafter;
};

TEST(a_draft_is_what_the_draft_model_says_next) {
    Fixture  fixture;
    Sequence a = text(1, 10), b = text(2, 20);
    fixture.drafter.draft({&a, &b}, 4);
    CHECK(a.draft == expected(a, 4));
    CHECK(b.draft == expected(b, 4));
    a.tokens.insert(a.tokens.end(), {a.draft[0], a.draft[1], '!'});  // two were right
    b.tokens.push_back(b.draft[0]);
    fixture.drafter.draft({&b, &a}, 3);
    CHECK(a.draft == expected(a, 3));
    CHECK(b.draft == expected(b, 3));
    CHECK(fixture.model->valid());
    CHECK(fixture.drafter.token_ms() > 0);
}

TEST(a_draft_model_reads_only_what_is_new) {
    Fixture  fixture;
    Sequence a = text(1, 50);
    fixture.drafter.draft({&a}, 1);
    CHECK_EQ(fixture.model->n_rows(), size_t{50});
    a.tokens.push_back(a.draft[0]);
    fixture.drafter.draft({&a}, 1);
    CHECK_EQ(fixture.model->n_rows(), size_t{51});
    fixture.drafter.draft({&a}, 1);  // again: the last row, for its logits
    CHECK_EQ(fixture.model->n_rows(), size_t{52});
    CHECK(fixture.model->valid());
}

TEST(a_long_text_is_read_batch_by_batch_before_anything_is_guessed) {
    Fixture  fixture(2, 64);
    Sequence a = text(1, 150);
    fixture.drafter.draft({&a}, 2);
    CHECK(a.draft.empty());
    fixture.drafter.draft({&a}, 2);
    CHECK(a.draft.empty());
    CHECK_EQ(fixture.drafter.token_ms(), 0.0);  // says nothing about a token of a draft
    fixture.drafter.draft({&a}, 2);
    CHECK(a.draft == expected(a, 2));
    CHECK(fixture.model->valid());
}

TEST(slots_of_texts_that_have_ended_are_taken_over) {
    Fixture fixture(2);
    for (RequestId id = 1; id < 9; ++id) {
        Sequence a = text(id, 30), b = text(id + 1, 20);
        fixture.drafter.draft({&a, &b}, 3);
        CHECK(a.draft == expected(a, 3));
        CHECK(b.draft == expected(b, 3));
    }
    CHECK(fixture.model->valid());
}

TEST(a_draft_model_that_fails_begins_again) {
    Fixture  fixture;
    Sequence a = text(1, 30);
    fixture.drafter.draft({&a}, 3);
    fixture.model->fail_next();
    fixture.drafter.draft({&a}, 3);
    CHECK(a.draft.empty());
    fixture.drafter.draft({&a}, 3);
    CHECK(a.draft == expected(a, 3));
    CHECK(fixture.model->valid());
}

// The texts of an engine whose guesses come from a model that loops; its own does too when `alike`.
void check_texts(bool alike, int n) {
    const auto model = std::make_shared<FakeModel>(4, 256, 512);
    auto       draft = std::make_unique<FakeModel>(4, 256, 512);
    auto *     drafter = draft.get();
    drafter->loop();
    if (alike) {
        model->loop();
    }
    Engine         engine(model, {}, std::move(draft));
    SamplingParams params;
    params.temperature = 0;
    params.repeat_penalty = 1;
    params.max_tokens     = 150;
    std::map<RequestId, std::string> prompts, texts;
    for (int i = 0; i < n; ++i) {
        const std::string prompt = "number " + std::to_string(i);
        prompts[engine.submit({{model->vocabulary().tokenize(prompt, false, false), params, 0, {}, 0}})[0]] = prompt;
    }
    for (int ended = 0; ended < n;) {
        engine.events().wait(std::chrono::seconds(10));
        for (const Event & event : engine.events().drain()) {
            if (const auto * delta = std::get_if<Delta>(&event)) {
                texts[delta->id] += delta->text;
            } else {
                ++ended;
            }
        }
    }
    for (const auto & [id, prompt] : prompts) {
        CHECK_EQ(texts[id], FakeModel::expected(prompt, 150, alike ? FakeModel::next_looping : FakeModel::next));
    }
    CHECK(model->valid());
    CHECK(drafter->valid());
    if (!alike) {  // nothing to look up: it is asked once in a while in any case
        CHECK(drafter->n_rows() > 0);
        CHECK(engine.stats().drafted_tokens_total > 0);
    }
}

TEST(texts_are_the_same_with_a_draft_model) {
    for (const int n : {1, 3, 6}) {
        check_texts(true, n);
        check_texts(false, n);
    }
}

}  // namespace
}  // namespace inferno
