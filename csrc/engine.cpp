#include "engine.h"

#include <algorithm>
#include <utility>

#include <unistd.h>

namespace inferno {

namespace {

// A sequence that took part in this many failed steps is given up, so that it cannot drag others along for ever.
constexpr int32_t kMaxFailures   = 2;
constexpr double  kLongestGraceS = 1e9;

double milliseconds(TimePoint from, TimePoint to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
}

Error failure(const char * message) {
    return Error(ErrorCode::inference_failed, message);
}

std::optional<TimePoint> deadline_after(TimePoint now, std::optional<double> timeout_s) {
    if (!timeout_s) {
        return std::nullopt;
    }
    return now + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(*timeout_s));
}

SchedulerOptions scheduler_options(const Model & model, const EngineOptions & options, Drafter * drafter) {
    return {model.parallel(),
            model.batch_size(),
            static_cast<double>(options.step_budget_ms),
            options.prefix_cache,
            model.can_trim(),
            static_cast<size_t>(options.prefix_store_mb) << 20,
            model.token_bytes(),
            model.max_outputs(),
            options.draft_tokens,
            drafter};
}

Timings timings_of(const Sequence & sequence, TimePoint now) {
    Timings         timings;
    const TimePoint scheduled   = sequence.scheduled.value_or(now);
    const TimePoint first_token = sequence.first_token.value_or(now);
    timings.queue_ms            = milliseconds(sequence.accepted, scheduled);
    timings.prefill_ms          = milliseconds(scheduled, first_token);
    timings.decode_ms           = milliseconds(first_token, now);
    return timings;
}

}  // namespace

Engine::Engine(std::shared_ptr<Model> model, const EngineOptions & options, std::unique_ptr<Model> draft_model,
               std::unique_ptr<PrefixFile> prefix_file)
    : options_(options), capacity_(static_cast<size_t>(options.queue_size) + static_cast<size_t>(model->parallel())),
      worker_(model.get()), vocabulary_(model->vocabulary()), grammars_(vocabulary_),
      prefix_file_(std::move(prefix_file)),
      draft_model_(draft_model ? std::make_unique<DraftModel>(std::move(draft_model)) : nullptr),
      scheduler_(scheduler_options(*model, options, draft_model_.get())), model_(std::move(model)), process_(getpid()) {
    stats_.parallel        = worker_->parallel();
    stats_.kv_tokens_total = static_cast<int64_t>(worker_->parallel()) * worker_->context_size();
    thread_                = std::thread([this] { run(); });
}

Engine::~Engine() {
    close(0);
}

bool Engine::forked() const {
    return getpid() != process_;
}

void Engine::check_process() const {
    if (forked()) {
        throw Error(ErrorCode::service_unavailable, "The model is in the process that this one was forked from.");
    }
}

std::shared_ptr<const Model> Engine::model() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!model_) {
        throw Error(ErrorCode::service_unavailable, "The model has been unloaded.");
    }
    return model_;
}

Engine::Chat Engine::chat() {
    std::shared_ptr<const Model>      alive = model();
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!chat_) {
        chat_ = std::make_shared<const ChatTemplate>(*alive);
    }
    return {std::move(alive), chat_};
}

void Engine::check_room_locked(size_t n_new) const {
    if (closing_ || failed_) {
        throw Error(ErrorCode::service_unavailable, failed_ ? "The engine has failed." : "The model is being unloaded.");
    }
    if (accepted_.size() + n_new > capacity_) {
        throw Error(ErrorCode::service_unavailable, "The queue is full.");
    }
}

void Engine::check_prompt(const std::vector<Token> & prompt, int32_t limit) const {
    if (prompt.empty()) {
        throw Error(ErrorCode::invalid_request, "The prompt is empty.", "prompt");
    }
    if (prompt.size() > static_cast<size_t>(limit)) {
        throw Error(ErrorCode::context_length_exceeded,
                    "The prompt has " + std::to_string(prompt.size()) + " tokens; at most " + std::to_string(limit) +
                        " fit.",
                    "prompt");
    }
    for (Token token : prompt) {
        if (token < 0 || token >= vocabulary_.size()) {
            throw Error(ErrorCode::invalid_request, "The prompt has a token id outside the vocabulary.", "prompt");
        }
    }
}

std::unique_ptr<Sequence> Engine::make_sequence(GenerationSpec && spec, TimePoint now) {
    validate(spec.params);
    // One position must be left for the first generated token.
    check_prompt(spec.prompt, worker_->context_size() - 1);
    for (const LogitBias & bias : spec.params.logit_bias) {
        if (bias.token < 0 || bias.token >= vocabulary_.size()) {
            throw Error(ErrorCode::invalid_request, "logit_bias names a token outside the vocabulary.", "logit_bias");
        }
    }
    auto constraint = grammars_.constraint(spec.params, spec.cache_salt);
    const auto n_prompt    = static_cast<int32_t>(spec.prompt.size());
    spec.params.max_tokens = std::min(spec.params.max_tokens, worker_->context_size() - n_prompt);

    auto sequence = std::make_unique<Sequence>(0, std::move(spec.prompt), std::move(spec.params));
    sequence->priority   = spec.priority;
    sequence->cache_salt = spec.cache_salt;
    sequence->accepted   = now;
    sequence->deadline   = deadline_after(now, spec.timeout_s);
    sequence->sampler.emplace(sequence->params, vocabulary_, sequence->tokens, std::move(constraint));
    return sequence;
}

std::vector<RequestId> Engine::submit(std::vector<GenerationSpec> specs) {
    check_process();
    const std::shared_ptr<const Model> alive = model();
    if (!alive->info().can_generate) {
        throw Error(ErrorCode::invalid_request, "The model does not generate text.", "model");
    }
    const TimePoint                        now = Clock::now();
    std::vector<std::unique_ptr<Sequence>> made;
    for (GenerationSpec & spec : specs) {
        made.push_back(make_sequence(std::move(spec), now));
    }
    std::vector<RequestId>            ids;
    const std::lock_guard<std::mutex> lock(mutex_);
    check_room_locked(made.size());
    for (auto & sequence : made) {
        sequence->id = next_id_++;
        ids.push_back(sequence->id);
        accepted_.insert(sequence->id);
        submitted_.push_back(std::move(sequence));
    }
    commands_.notify_one();
    return ids;
}

std::vector<RequestId> Engine::submit_embeddings(std::vector<EmbeddingSpec> specs) {
    check_process();
    const std::shared_ptr<const Model> alive = model();
    if (!alive->info().can_embed) {
        throw Error(ErrorCode::invalid_request, "The model does not make embeddings.", "model");
    }
    for (const EmbeddingSpec & spec : specs) {
        check_prompt(spec.input, alive->context_size());
    }
    const TimePoint                   now = Clock::now();
    std::vector<RequestId>            ids;
    const std::lock_guard<std::mutex> lock(mutex_);
    check_room_locked(specs.size());
    for (EmbeddingSpec & spec : specs) {
        const RequestId id = next_id_++;
        ids.push_back(id);
        accepted_.insert(id);
        submitted_embeddings_.push_back(
            {id, std::move(spec.input), spec.priority, now, deadline_after(now, spec.timeout_s)});
    }
    commands_.notify_one();
    return ids;
}

void Engine::cancel(const std::vector<RequestId> & ids) {
    if (forked()) {
        return;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_.insert(ids.begin(), ids.end());
    const auto is_cancelled = [this](RequestId id) { return cancelled_.count(id) != 0; };
    // A running step is cut short only when it works for nobody any more.
    if (model_ && !step_requests_.empty() && std::all_of(step_requests_.begin(), step_requests_.end(), is_cancelled)) {
        model_->set_abort(true);
    }
    commands_.notify_one();
}

EngineStats Engine::stats() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failed_) {
        throw Error(ErrorCode::inference_failed, "The engine has failed.");
    }
    EngineStats result = stats_;
    // Those that the engine's thread has not seen yet too: work shows from the moment it is accepted, also while the
    // step before it hangs.
    result.waiting = static_cast<int32_t>(accepted_.size()) - result.running;
    return result;
}

bool Engine::stopping() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return stop_now_;
}

void Engine::close(double grace_s) {
    if (forked()) {
        return;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    closing_ = true;
    commands_.notify_one();
    const auto ended = [this] { return thread_ended_; };
    // Clocks count nanoseconds in 64 bits: longer ones would overflow.
    if (!ended_.wait_for(lock, std::chrono::duration<double>(std::min(grace_s, kLongestGraceS)), ended)) {
        stop_now_ = true;
        if (model_) {
            model_->set_abort(true);
        }
        commands_.notify_one();
        ended_.wait(lock, ended);
    }
    lock.unlock();
    std::call_once(joined_, [this] { thread_.join(); });
    lock.lock();
    chat_.reset();
    model_.reset();
}

void Engine::run() {
    std::string failure;
    try {
        read_prefixes();
        loop();
        write_prefixes();
    } catch (const std::exception &) {
        failure = "The engine failed unexpectedly.";
    }
    Frame frame;
    if (!failure.empty()) {
        finish_all(failure, frame);
    }
    publish(frame);
    const std::lock_guard<std::mutex> lock(mutex_);
    thread_ended_ = true;
    ended_.notify_all();
}

// A model whose rows cannot be moved has a store that is off.
void Engine::read_prefixes() {
    if (prefix_file_ && scheduler_.kept_prefixes().on()) {
        prefix_file_->load(scheduler_.kept_prefixes());
    }
}

void Engine::write_prefixes() {
    if (!prefix_file_ || !scheduler_.kept_prefixes().on()) {
        return;
    }
    Batch batch;
    batch.edits = scheduler_.keep_prefixes();
    if (worker_->decode(batch) == DecodeStatus::ok) {
        prefix_file_->save(scheduler_.kept_prefixes());
    }
}

void Engine::loop() {
    while (take_commands()) {
        Frame frame;
        drop_dead(frame);
        if (!embeddings_.empty()) {
            embed(frame);
            publish(frame);
        }
        if (!sequences_.empty()) {
            step(frame);
        }
        publish(frame);
    }
}

bool Engine::idle() const {
    return sequences_.empty() && embeddings_.empty();
}

bool Engine::take_commands() {
    std::unique_lock<std::mutex> lock(mutex_);
    step_requests_.clear();
    const auto nothing_new = [this] { return submitted_.empty() && submitted_embeddings_.empty(); };
    while (idle() && nothing_new() && !closing_) {
        cancelled_.clear();
        commands_.wait(lock);
    }
    for (auto & sequence : submitted_) {
        take(std::move(sequence));
    }
    submitted_.clear();
    for (Embedding & work : submitted_embeddings_) {
        take(std::move(work));
    }
    submitted_embeddings_.clear();
    dead_.assign(cancelled_.begin(), cancelled_.end());
    cancelled_.clear();
    if (stop_now_) {
        dead_.assign(accepted_.begin(), accepted_.end());
    }
    worker_->set_abort(false);
    return !(closing_ && idle());
}

void Engine::take(std::unique_ptr<Sequence> sequence) {
    watch(sequence->id, sequence->deadline);
    scheduler_.add(sequence.get());
    const RequestId id = sequence->id;
    sequences_.emplace(id, std::move(sequence));
}

void Engine::take(Embedding && work) {
    watch(work.id, work.deadline);
    const RequestId id    = work.id;
    const auto      place = embeddings_.emplace(std::pair(-work.priority, id), std::move(work)).first;
    embedding_places_.emplace(id, place);
}

void Engine::watch(RequestId id, const std::optional<TimePoint> & deadline) {
    if (deadline) {
        deadlines_.emplace(*deadline, id);
    }
}

void Engine::unwatch(RequestId id, const std::optional<TimePoint> & deadline) {
    if (deadline) {
        deadlines_.erase({*deadline, id});
    }
}

void Engine::drop_dead(Frame & frame) {
    for (const RequestId id : dead_) {
        end(id, FinishReason::cancelled, frame);
    }
    dead_.clear();
    const TimePoint now = Clock::now();
    while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
        end(deadlines_.begin()->second, FinishReason::timeout, frame);  // and forgets the deadline
    }
}

void Engine::end(RequestId id, FinishReason reason, Frame & frame) {
    const auto sequence = sequences_.find(id);
    if (sequence != sequences_.end()) {
        return finish(*sequence->second, reason, frame);
    }
    const auto place = embedding_places_.find(id);
    if (place != embedding_places_.end()) {
        finish_embedding(place->second, reason, {}, frame);
    }
}

void Engine::step(Frame & frame) {
    const Step step = scheduler_.plan(Clock::now());
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (const Step::Part & part : step.parts) {
            step_requests_.insert(part.sequence->id);
        }
        stats_.running = static_cast<int32_t>(scheduler_.running().size());
    }
    const TimePoint    start  = Clock::now();
    const DecodeStatus status = worker_->decode(step.batch);
    const double       ms     = milliseconds(start, Clock::now());
    switch (status) {
        case DecodeStatus::ok:
            scheduler_.commit(step, ms);
            count_step(step, ms);
            sample(step, frame);
            break;
        case DecodeStatus::no_space:
            if (!scheduler_.make_room()) {
                finish(*step.parts.front().sequence, FinishReason::error, frame, failure("The KV cache is too small."));
            }
            break;
        case DecodeStatus::aborted:
            scheduler_.roll_back(step);
            break;
        case DecodeStatus::failed:
            recover(step, frame);
            break;
    }
}

void Engine::recover(const Step & step, Frame & frame) {
    scheduler_.recompute(step);
    for (const Step::Part & part : step.parts) {
        part.sequence->failures += 1;
        if (part.sequence->failures >= kMaxFailures) {
            finish(*part.sequence, FinishReason::error, frame, failure("The model failed to compute the text."));
        }
    }
}

void Engine::count_step(const Step & step, double ms) {
    const std::lock_guard<std::mutex> lock(mutex_);
    stats_.steps_total += 1;
    stats_.rows_total += step.batch.rows.size();
    stats_.busy_ms_total += ms;
    stats_.preemptions_total    = scheduler_.preemptions();
    stats_.fetched_tokens_total = scheduler_.fetched_tokens();
    stats_.drafted_tokens_total = scheduler_.drafted_tokens();
    stats_.stored_bytes         = scheduler_.stored_bytes();
    stats_.kv_tokens_used       = scheduler_.cached_tokens();
    for (const Sequence * sequence : scheduler_.running()) {
        stats_.kv_tokens_used += sequence->n_past;
    }
}

void Engine::sample(const Step & step, Frame & frame) {
    for (const Step::Part & part : step.parts) {
        if (!part.samples) {
            continue;
        }
        try {
            sample(part, frame);
        } catch (const Error & error) {
            finish(*part.sequence, FinishReason::error, frame, error);
        }
    }
}

// The token after the last one, and, as long as the draft says what is sampled, those after it.
void Engine::sample(const Step::Part & part, Frame & frame) {
    Sequence &   sequence = *part.sequence;
    const size_t first    = part.last_row - static_cast<size_t>(part.n_drafted);
    for (size_t i = 0; take_token(sequence, sequence.sampler->sample(worker_->logits(first + i)), frame); ++i) {
        if (i == sequence.draft.size() || sequence.tokens.back() != sequence.draft[i]) {
            return scheduler_.settle(&sequence);
        }
        scheduler_.accept(&sequence);
    }
}

void Engine::count_token(Sequence & sequence) {
    const std::lock_guard<std::mutex> lock(mutex_);
    stats_.completion_tokens_total += 1;
    if (!sequence.first_token) {
        sequence.first_token = Clock::now();
        stats_.prompt_tokens_total += static_cast<uint64_t>(sequence.n_prompt);
        stats_.cached_tokens_total += static_cast<uint64_t>(sequence.n_cached);
    }
}

bool Engine::ends_text(const Sequence & sequence, Token token) const {
    const auto & stops = sequence.params.stop_token_ids;
    return (!sequence.params.ignore_eos && vocabulary_.is_end(token)) ||
           std::find(stops.begin(), stops.end(), token) != stops.end();
}

bool Engine::take_token(Sequence & sequence, const Sampled & sampled, Frame & frame) {
    count_token(sequence);
    sequence.tokens.push_back(sampled.token);
    sequence.unreported_tokens += 1;
    if (ends_text(sequence, sampled.token)) {
        finish(sequence, FinishReason::stop, frame);
        return false;
    }
    const std::string_view piece = vocabulary_.piece(sampled.token);
    sequence.pushed_bytes += piece.size();
    if (sequence.params.logprobs >= 0) {
        sequence.held_logprobs.emplace_back(sampled.logprob, sequence.pushed_bytes);
    }
    emit_text(sequence, sequence.text.push(piece), frame);
    if (sequence.text.stopped() || sequence.sampler->complete()) {
        finish(sequence, FinishReason::stop, frame);
        return false;
    }
    if (sequence.n_generated() >= sequence.params.max_tokens) {
        finish(sequence, FinishReason::length, frame);
        return false;
    }
    return true;
}

void Engine::emit_text(Sequence & sequence, std::string text, Frame & frame) {
    Delta        delta{sequence.id, std::move(text), 0, {}};
    const size_t released = sequence.pushed_bytes - sequence.text.held_bytes();
    auto &       held     = sequence.held_logprobs;
    while (!held.empty() && held.front().second <= released) {
        delta.logprobs.push_back(std::move(held.front().first));
        held.pop_front();
    }
    if (delta.text.empty() && delta.logprobs.empty()) {
        return;
    }
    delta.n_tokens = std::exchange(sequence.unreported_tokens, 0);
    frame.emplace_back(std::move(delta));
}

void Engine::finish(Sequence & sequence, FinishReason reason, Frame & frame, const Error & error) {
    if (!sequence.text.stopped()) {
        emit_text(sequence, sequence.text.finish(), frame);
    }
    Finish end;
    end.id            = sequence.id;
    end.reason        = reason;
    end.usage         = {sequence.n_prompt, sequence.n_generated(), sequence.n_cached};
    end.timings       = timings_of(sequence, Clock::now());
    end.stop_match    = sequence.text.stop_match();
    end.error_code    = reason == FinishReason::timeout ? ErrorCode::timeout : error.code();
    end.error_message = error.what();
    frame.emplace_back(std::move(end));
    unwatch(sequence.id, sequence.deadline);
    scheduler_.remove(&sequence);
    sequences_.erase(sequence.id);
}

void Engine::embed(Frame & frame) {
    const auto                        max_tokens = static_cast<size_t>(worker_->embed_batch_size());
    std::vector<std::vector<Token>>   inputs;
    std::vector<Embeddings::iterator> works;
    size_t                            n_tokens = 0;
    for (auto work = embeddings_.begin(); work != embeddings_.end(); ++work) {
        const std::vector<Token> & input = work->second.input;
        if (inputs.size() == kMaxEmbedInputs || (!inputs.empty() && n_tokens + input.size() > max_tokens)) {
            break;
        }
        n_tokens += input.size();
        inputs.push_back(input);
        works.push_back(work);
    }
    std::vector<std::vector<float>> vectors(inputs.size());
    std::string                     error;
    const TimePoint                 start = Clock::now();
    try {
        vectors = worker_->embed(inputs);
    } catch (const Error & failure) {
        error = failure.what();
    }
    FinishReason reason = FinishReason::stop;
    if (!error.empty()) {
        reason = stopping() ? FinishReason::cancelled : FinishReason::error;  // close() aborts what is computed
    }
    for (size_t i = 0; i < works.size(); ++i) {
        finish_embedding(works[i], reason, std::move(vectors[i]), frame, error);
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    stats_.steps_total += 1;
    stats_.rows_total += n_tokens;
    stats_.prompt_tokens_total += n_tokens;
    stats_.busy_ms_total += milliseconds(start, Clock::now());
}

void Engine::finish_embedding(Embeddings::iterator place, FinishReason reason, std::vector<float> vector, Frame & frame,
                              const std::string & error) {
    const Embedding work = std::move(place->second);
    unwatch(work.id, work.deadline);
    embedding_places_.erase(work.id);
    embeddings_.erase(place);
    Finish end;
    end.id                  = work.id;
    end.reason              = reason;
    end.usage.prompt_tokens = static_cast<int32_t>(work.input.size());
    end.timings.queue_ms    = milliseconds(work.accepted, Clock::now());
    end.error_code          = reason == FinishReason::timeout ? ErrorCode::timeout : ErrorCode::inference_failed;
    end.error_message       = error;
    end.embedding           = std::move(vector);
    frame.emplace_back(std::move(end));
}

void Engine::finish_all(const std::string & error, Frame & frame) {
    const std::lock_guard<std::mutex> lock(mutex_);
    failed_ = true;
    for (const RequestId id : accepted_) {
        Finish end;
        end.id            = id;
        end.reason        = FinishReason::error;
        end.error_code    = ErrorCode::inference_failed;
        end.error_message = error;
        frame.emplace_back(std::move(end));
    }
    submitted_.clear();
    submitted_embeddings_.clear();
}

void Engine::publish(Frame & frame) {
    {
        // Before anybody learns of an end: who has seen one does not find it among the running.
        const std::lock_guard<std::mutex> lock(mutex_);
        stats_.running = static_cast<int32_t>(scheduler_.running().size());
        stats_.accepted_tokens_total = scheduler_.accepted_tokens();
        for (const Event & event : frame) {
            if (const auto * end = std::get_if<Finish>(&event)) {
                accepted_.erase(end->id);
            }
        }
    }
    if (!frame.empty()) {
        events_.push(std::move(frame));
        frame.clear();
    }
}

}  // namespace inferno
