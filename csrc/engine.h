// One loaded model and the one thread that works on it: continuous batching behind submit, cancel and drain.
//
// Wires rooms, owns no policy. Public functions may be called from any thread; none of them waits for a step, close()
// aside. The engine thread waits for nobody: events pile up until they are drained.
//
// fork() does not take the thread along. In such a process an engine refuses work, and neither waits nor locks when it
// is to cancel or close: a lock may have been held, and its condition variables waited for, when the process was forked.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <sys/types.h>

#include "channel.h"
#include "chat.h"
#include "draft_model.h"
#include "error.h"
#include "event.h"
#include "grammar.h"
#include "model.h"
#include "prefix_file.h"
#include "scheduler.h"
#include "sequence.h"

namespace inferno {

struct GenerationSpec {
    std::vector<Token>     prompt;
    SamplingParams         params;
    int32_t                priority = 0;
    std::optional<double>  timeout_s;  // from now to the end of the text
    uint64_t               cache_salt = 0;
};

struct EmbeddingSpec {
    std::vector<Token>    input;
    int32_t               priority = 0;
    std::optional<double> timeout_s;
};

struct EngineStats {
    int32_t  running                 = 0;
    int32_t  waiting                 = 0;  // accepted, and neither running nor ended
    int32_t  parallel                = 0;
    int64_t  kv_tokens_used          = 0;  // by running and by cached texts
    int64_t  kv_tokens_total         = 0;
    uint64_t stored_bytes            = 0;  // of prefixes outside the KV cache
    uint64_t steps_total             = 0;
    uint64_t rows_total              = 0;
    uint64_t prompt_tokens_total     = 0;
    uint64_t cached_tokens_total     = 0;
    uint64_t fetched_tokens_total    = 0;  // of those, came from outside the KV cache
    uint64_t completion_tokens_total = 0;
    uint64_t drafted_tokens_total    = 0;  // computed before it was known whether they follow
    uint64_t accepted_tokens_total   = 0;  // of those, did
    uint64_t preemptions_total       = 0;
    double   busy_ms_total           = 0;
};

class Engine {
public:
    // Takes the model, one that guesses for it (load_draft_model()) or null, and where prefixes are kept between runs
    // (open_prefix_file()) or null, and starts the thread.
    Engine(std::shared_ptr<Model> model, const EngineOptions & options, std::unique_ptr<Model> draft_model = nullptr,
           std::unique_ptr<PrefixFile> prefix_file = nullptr);
    // Cancels what runs, waits for the thread, frees the model. Not to be called where forked() is true.
    ~Engine();
    Engine(const Engine &)             = delete;
    Engine & operator=(const Engine &) = delete;

    // Queue places for all or for none. Ids rise in the order given. Throws Error: invalid_request (bounds, empty
    // prompt, unknown token, bad grammar), context_length_exceeded, service_unavailable (queue full, closed, forked).
    std::vector<RequestId> submit(std::vector<GenerationSpec> specs);
    std::vector<RequestId> submit_embeddings(std::vector<EmbeddingSpec> specs);

    // Ends requests within one step, prompt computation included. Unknown and finished ids are ignored.
    void cancel(const std::vector<RequestId> & ids);

    // True in a process that was forked from the engine's own. Events are then not to be drained: they are the other's.
    bool forked() const;

    Channel & events() { return events_; }
    // Throws Error(inference_failed) once the engine thread has failed for good.
    EngineStats stats() const;

    // Refuses new work, waits up to `grace_s` seconds for accepted work, cancels the rest, ends the thread and frees
    // the model. Every accepted request has had its Finish by then. Idempotent; may be called by several threads.
    void close(double grace_s);

    // A handle that keeps the model alive, also past close(): tokenizing may go on while the engine closes.
    // Throws Error(service_unavailable) once closed.
    std::shared_ptr<const Model> model() const;

    struct Chat {
        std::shared_ptr<const Model>        model;  // the template refers to it
        std::shared_ptr<const ChatTemplate> chat_template;
    };
    // Throws Error(invalid_request) when the model has no chat template, and like model().
    Chat chat();

private:
    struct Embedding {
        RequestId                id;
        std::vector<Token>       input;
        int32_t                  priority;
        TimePoint                accepted;
        std::optional<TimePoint> deadline;
    };
    using Frame      = std::vector<Event>;
    using Embeddings = std::map<std::pair<int32_t, RequestId>, Embedding>;  // by -priority, then id

    std::unique_ptr<Sequence> make_sequence(GenerationSpec && spec, TimePoint now);
    void check_prompt(const std::vector<Token> & prompt, int32_t limit) const;
    void check_process() const;
    void check_room_locked(size_t n_new) const;

    // Engine thread.
    void run();
    void read_prefixes();
    void write_prefixes();
    void loop();
    bool take_commands();  // false when there is nothing left to do, for good
    bool idle() const;
    bool stopping() const;  // any thread
    void take(std::unique_ptr<Sequence> sequence);
    void take(Embedding && work);
    void watch(RequestId id, const std::optional<TimePoint> & deadline);
    void unwatch(RequestId id, const std::optional<TimePoint> & deadline);
    void drop_dead(Frame & frame);
    // Sequence or embedding. Nothing happens when it has ended already.
    void end(RequestId id, FinishReason reason, Frame & frame);
    void step(Frame & frame);
    void recover(const Step & step, Frame & frame);
    void sample(const Step & step, Frame & frame);
    void sample(const Step::Part & part, Frame & frame);
    void count_token(Sequence & sequence);
    // False when that has ended the text, and the sequence.
    bool take_token(Sequence & sequence, const Sampled & sampled, Frame & frame);
    bool ends_text(const Sequence & sequence, Token token) const;
    void emit_text(Sequence & sequence, std::string text, Frame & frame);
    void finish(Sequence & sequence, FinishReason reason, Frame & frame,
                const Error & error = Error(ErrorCode::inference_failed, ""));
    void embed(Frame & frame);
    void finish_embedding(Embeddings::iterator place, FinishReason reason, std::vector<float> vector, Frame & frame,
                          const std::string & error = "");
    void finish_all(const std::string & error, Frame & frame);
    void publish(Frame & frame);
    void count_step(const Step & step, double ms);

    const EngineOptions options_;
    const size_t        capacity_;  // requests that may be accepted and unfinished
    Channel             events_;
    Model * const       worker_;  // the model; alive while the thread runs
    const Vocabulary &  vocabulary_;
    Grammars            grammars_;
    const std::unique_ptr<PrefixFile> prefix_file_;  // may be null
    const std::unique_ptr<DraftModel> draft_model_;  // may be null; engine thread only

    // Engine thread only.
    Scheduler                                                scheduler_;
    std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences_;
    Embeddings                                               embeddings_;
    std::unordered_map<RequestId, Embeddings::iterator>      embedding_places_;
    std::set<std::pair<TimePoint, RequestId>>                deadlines_;  // of both
    std::vector<RequestId>                                   dead_;  // to cancel before the next step

    // Guarded by mutex_.
    mutable std::mutex                     mutex_;
    std::condition_variable                commands_;
    std::vector<std::unique_ptr<Sequence>> submitted_;
    std::vector<Embedding>                 submitted_embeddings_;
    std::unordered_set<RequestId>          cancelled_;
    std::unordered_set<RequestId>          accepted_;        // not finished yet
    std::unordered_set<RequestId>          step_requests_;   // with rows in the running step
    bool                                   closing_   = false;
    bool                                   failed_    = false;
    bool                                   stop_now_  = false;
    RequestId                              next_id_   = 1;
    EngineStats                            stats_;
    std::shared_ptr<Model>                 model_;  // null once closed
    std::shared_ptr<const ChatTemplate>    chat_;   // made when first asked for
    std::condition_variable                ended_;
    bool                                   thread_ended_ = false;

    const pid_t    process_;
    std::once_flag joined_;
    std::thread    thread_;
};

}  // namespace inferno
