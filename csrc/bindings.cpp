// Python <-> C++ translation and GIL release; no policy.
//
// Knobs are folded from the descriptor rows of params.h. Events leave as plain tuples laid out as the array-like
// structs of inferno/request.py, so that a worker process can put them on the wire without touching them.

#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <future>
#include <memory>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "backends.h"
#include "devices.h"
#include "draft_model.h"
#include "engine.h"
#include "grammar.h"
#include "model.h"
#include "params.h"
#include "perplexity.h"
#include "prefix_file.h"
#include "quantize.h"
#include "tensor_list.h"

namespace py = pybind11;

namespace inferno {
namespace {

// ---- errors -----------------------------------------------------------------------------------------------------

void raise_python(const Error & error) {
    const py::module_ errors = py::module_::import("inferno.errors");
    const py::object  type   = errors.attr("BY_CODE")[error_code_name(error.code())];
    py::dict          keywords;
    if (!error.field().empty() && PyObject_IsSubclass(type.ptr(), errors.attr("InvalidRequest").ptr()) == 1) {
        keywords["field"] = error.field();
    }
    const py::object exception = type(error.what(), **keywords);
    PyErr_SetObject(type.ptr(), exception.ptr());
}

[[noreturn]] void refuse(const std::string & field, const std::string & expected) {
    throw Error(ErrorCode::invalid_request, field + " must be " + expected + ".", field);
}

// ---- Python value -> member of a params struct ------------------------------------------------------------------

// An int, or what stands for one in Python (numpy's, say), but no truth value.
int64_t read_integer(const std::string & field, py::handle value) {
    if (PyBool_Check(value.ptr()) == 0 && PyIndex_Check(value.ptr()) != 0) {
        const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
        if (!number) {
            PyErr_Clear();
            refuse(field, "an integer");
        }
        int           overflow = 0;
        const int64_t result   = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
        if (overflow == 0) {
            return result;
        }
        return overflow > 0 ? std::numeric_limits<int64_t>::max() : std::numeric_limits<int64_t>::min();
    }
    if (PyFloat_Check(value.ptr()) != 0) {
        const double number = PyFloat_AS_DOUBLE(value.ptr());
        if (std::nearbyint(number) == number && std::fabs(number) <= kMaxSafeJson) {
            return static_cast<int64_t>(number);
        }
    }
    refuse(field, "an integer");
}

double read_number(const std::string & field, py::handle value) {
    if (PyBool_Check(value.ptr()) != 0 || PyNumber_Check(value.ptr()) == 0) {
        refuse(field, "a number");
    }
    const double result = PyFloat_AsDouble(value.ptr());
    if (PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        refuse(field, "a number in range");
    }
    return result;
}

std::string read_string(const std::string & field, py::handle value) {
    if (PyUnicode_Check(value.ptr()) == 0) {
        refuse(field, "a string");
    }
    Py_ssize_t   size = 0;
    const char * utf8 = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
    if (utf8 == nullptr) {
        PyErr_Clear();
        refuse(field, "valid Unicode text");
    }
    return std::string(utf8, static_cast<size_t>(size));
}

// Text, or what stands for a path in Python (os.PathLike).
std::filesystem::path read_path(const std::string & field, py::handle value) {
    const auto text = py::reinterpret_steal<py::object>(PyOS_FSPath(value.ptr()));
    if (!text) {
        PyErr_Clear();
        refuse(field, "a path");
    }
    return read_string(field, text);
}

// The text of a JSON object, which may be given as text or as a dict.
std::string read_json(const std::string & field, py::handle value) {
    const bool is_text = PyUnicode_Check(value.ptr()) != 0;
    if (is_text && PyUnicode_GetLength(value.ptr()) > 0) {
        return read_string(field, value);
    }
    if (is_text || PyDict_Check(value.ptr()) == 0) {
        refuse(field, "a JSON object");
    }
    try {
        using namespace py::literals;
        const py::object dumps = py::module_::import("json").attr("dumps");
        return read_string(field, dumps(value, "ensure_ascii"_a = false, "allow_nan"_a = false));
    } catch (const py::error_already_set &) {
        refuse(field, "an object of JSON values that is not too deep");
    }
}

bool is_list(py::handle value) {
    return PyList_Check(value.ptr()) != 0 || PyTuple_Check(value.ptr()) != 0;
}

template <class Read>
auto read_list(const std::string & field, py::handle value, size_t max_items, Read read) {
    if (!is_list(value)) {
        refuse(field, "a list");
    }
    const auto items = py::reinterpret_borrow<py::sequence>(value);
    if (max_items != 0 && items.size() > max_items) {
        refuse(field, "a list of at most " + std::to_string(max_items) + " items");
    }
    std::vector<decltype(read(field, value))> result;
    result.reserve(items.size());
    for (size_t i = 0; i < items.size(); ++i) {
        result.push_back(read(field + "[" + std::to_string(i) + "]", items[i]));
    }
    return result;
}

// Outside the type's range means outside the row's range as well; the end of the type lets validate() say so.
Token read_token(const std::string & field, py::handle value) {
    const int64_t number = read_integer(field, value);
    return static_cast<Token>(std::clamp<int64_t>(number, std::numeric_limits<Token>::min(),
                                                  std::numeric_limits<Token>::max()));
}

std::vector<LogitBias> read_biases(const std::string & field, py::handle value, size_t max_items) {
    if (PyDict_Check(value.ptr()) == 0) {
        refuse(field, "an object of token id to number");
    }
    const auto items = py::reinterpret_borrow<py::dict>(value);
    if (items.size() > max_items) {
        refuse(field, "an object of at most " + std::to_string(max_items) + " items");
    }
    std::vector<LogitBias> result;
    for (const auto & [key, bias] : items) {
        py::object number = py::reinterpret_borrow<py::object>(key);
        if (PyUnicode_Check(key.ptr()) != 0) {
            number = py::reinterpret_steal<py::object>(PyLong_FromUnicodeObject(key.ptr(), 10));
            if (!number) {
                PyErr_Clear();
                refuse(field, "an object whose keys are token ids");
            }
        }
        const Token token = read_token(field, number);
        if (token < 0) {
            refuse(field, "an object whose keys are token ids");
        }
        result.push_back({token, static_cast<float>(read_number(field + "." + std::to_string(token), bias))});
    }
    return result;
}

template <class Owner, class T>
void read_field(const Field<Owner, T> & row, py::handle value, Owner & out) {
    const std::string name = row.name;
    if constexpr (std::is_same_v<T, bool>) {
        if (PyBool_Check(value.ptr()) == 0) {
            refuse(name, "true or false");
        }
        out.*row.member = value.ptr() == Py_True;
    } else if constexpr (std::is_same_v<T, int32_t>) {
        out.*row.member = read_token(name, value);
    } else if constexpr (std::is_same_v<T, std::optional<int64_t>>) {
        out.*row.member = read_integer(name, value);
    } else if constexpr (std::is_same_v<T, float>) {
        out.*row.member = static_cast<float>(read_number(name, value));
    } else if constexpr (std::is_same_v<T, std::string>) {
        out.*row.member = read_string(name, value);
    } else if constexpr (std::is_same_v<T, std::filesystem::path>) {
        out.*row.member = read_path(name, value);
    } else if constexpr (std::is_same_v<T, JsonText>) {
        out.*row.member = {read_json(name, value)};
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
        out.*row.member = PyUnicode_Check(value.ptr()) != 0
                              ? std::vector<std::string>{read_string(name, value)}
                              : read_list(name, value, row.max_items, read_string);
    } else if constexpr (std::is_same_v<T, std::vector<Token>>) {
        out.*row.member = read_list(name, value, row.max_items, read_token);
    } else {
        static_assert(std::is_same_v<T, std::vector<LogitBias>>);
        out.*row.member = read_biases(name, value, row.max_items);
    }
}

template <class Table, class Visit>
void for_each_row(const Table & table, Visit visit) {
    std::apply([&](const auto &... rows) { (visit(rows), ...); }, table);
}

// `fields` -> struct; `given` is called with each row that had a value.
template <class Owner, class Table, class Given>
Owner read_fields(const Table & table, const py::dict & fields, Given given) {
    Owner  result;
    size_t n_known = 0;
    for_each_row(table, [&](const auto & row) {
        if (!fields.contains(row.name)) {
            return;
        }
        ++n_known;
        const py::object value = fields[row.name];
        if (!value.is_none()) {
            read_field(row, value, result);
            given(row);
        }
    });
    if (n_known != fields.size()) {
        for (const auto & item : fields) {
            bool known = false;
            for_each_row(table, [&](const auto & row) { known = known || item.first.equal(py::str(row.name)); });
            if (!known) {
                const std::string name = py::str(item.first);
                throw Error(ErrorCode::invalid_request, "There is no field named " + name + ".", name);
            }
        }
    }
    validate(result);
    return result;
}

template <class Owner, class Table>
Owner read_fields(const Table & table, const py::dict & fields) {
    return read_fields<Owner>(table, fields, [](const auto &) {});
}

// ---- member of a params struct -> Python value ------------------------------------------------------------------

template <class T>
py::object to_python(const T & value) {
    if constexpr (std::is_same_v<T, std::vector<LogitBias>>) {
        py::dict result;
        for (const LogitBias & item : value) {
            result[py::int_(item.token)] = item.bias;
        }
        return result;
    } else if constexpr (std::is_same_v<T, JsonText>) {
        return value.text.empty() ? py::object(py::none()) : py::cast(value.text);
    } else if constexpr (std::is_same_v<T, std::filesystem::path>) {
        return py::cast(value.string());
    } else {
        return py::cast(value);
    }
}

template <class T>
const char * type_name() {
    if constexpr (std::is_same_v<T, bool>) {
        return "boolean";
    } else if constexpr (std::is_same_v<T, int32_t> || std::is_same_v<T, std::optional<int64_t>>) {
        return "integer";
    } else if constexpr (std::is_same_v<T, float>) {
        return "number";
    } else if constexpr (std::is_same_v<T, std::string>) {
        return "string";
    } else if constexpr (std::is_same_v<T, JsonText>) {
        return "json";
    } else if constexpr (std::is_same_v<T, std::filesystem::path>) {
        return "path";
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
        return "strings";
    } else if constexpr (std::is_same_v<T, std::vector<Token>>) {
        return "integers";
    } else {
        return "token_biases";
    }
}

template <class Owner, class Table>
py::list describe(const Table & table) {
    const Owner defaults;
    py::list    result;
    for_each_row(table, [&](const auto & row) {
        using T = std::decay_t<decltype(defaults.*row.member)>;
        py::dict item;
        item["name"]          = row.name;
        item["type"]          = type_name<T>();
        item["default"]       = to_python(defaults.*row.member);
        item["min"]           = row.min;
        item["max"]           = row.max;
        item["min_exclusive"] = row.min_exclusive;
        item["max_items"]     = row.max_items;
        item["max_length"]    = row.max_length;
        item["choices"]       = choices_of(row.choices);
        item["help"]          = row.help;
        result.append(item);
    });
    return result;
}

// `check` is for what no single row can say.
template <class Owner, class Table, class Check>
py::dict validate_fields(const Table & table, const py::dict & fields, Check check) {
    std::vector<std::function<void(const Owner &, py::dict &)>> copies;
    const Owner parsed = read_fields<Owner>(table, fields, [&](const auto & row) {
        copies.push_back([row](const Owner & owner, py::dict & out) { out[row.name] = to_python(owner.*row.member); });
    });
    check(parsed);
    py::dict result;
    for (const auto & copy : copies) {
        copy(parsed, result);
    }
    return result;
}

// ---- values out -------------------------------------------------------------------------------------------------

py::dict to_dict(const ModelInfo & info) {
    py::dict result;
    result["architecture"]  = info.architecture;
    result["name"]          = info.name;
    result["description"]   = info.description;
    result["quantization"]  = info.quantization;
    result["n_params"]      = info.n_params;
    result["size_bytes"]    = info.size_bytes;
    result["context_train"] = info.context_train;
    result["n_vocab"]       = info.n_vocab;
    result["n_embd"]        = info.n_embd;
    result["n_layer"]       = info.n_layer;
    result["can_generate"]  = info.can_generate;
    result["can_embed"]     = info.can_embed;
    result["pooling"]       = info.pooling;
    result["chat_template"] = info.chat_template;
    result["metadata"]      = info.metadata;
    return result;
}

py::dict to_dict(const MemoryEstimate & memory) {
    py::dict result;
    result["model_bytes"]   = memory.model_bytes;
    result["context_bytes"] = memory.context_bytes;
    result["compute_bytes"] = memory.compute_bytes;
    result["store_bytes"]   = memory.store_bytes;
    result["total_bytes"]   = memory.total();
    result["host_bytes"]    = memory.host_bytes();
    result["context_size"]  = memory.context_size;
    result["device_bytes"]  = memory.device_bytes;
    result["gpu_layers"]    = memory.gpu_layers;
    return result;
}

py::dict to_dict(const Device & device) {
    py::dict result;
    result["name"]        = device.name;
    result["description"] = device.description;
    result["kind"]        = device.kind;
    result["total_bytes"] = device.total_bytes;
    result["free_bytes"]  = device.free_bytes;
    return result;
}

py::dict to_dict(const EngineStats & stats) {
    py::dict result;
    result["running"]                 = stats.running;
    result["waiting"]                 = stats.waiting;
    result["parallel"]                = stats.parallel;
    result["kv_tokens_used"]          = stats.kv_tokens_used;
    result["kv_tokens_total"]         = stats.kv_tokens_total;
    result["stored_bytes"]            = stats.stored_bytes;
    result["steps_total"]             = stats.steps_total;
    result["rows_total"]              = stats.rows_total;
    result["prompt_tokens_total"]     = stats.prompt_tokens_total;
    result["cached_tokens_total"]     = stats.cached_tokens_total;
    result["fetched_tokens_total"]    = stats.fetched_tokens_total;
    result["completion_tokens_total"] = stats.completion_tokens_total;
    result["drafted_tokens_total"]    = stats.drafted_tokens_total;
    result["accepted_tokens_total"]   = stats.accepted_tokens_total;
    result["preemptions_total"]       = stats.preemptions_total;
    result["busy_ms_total"]           = stats.busy_ms_total;
    return result;
}

py::list to_python(const std::vector<TokenLogprob> & logprobs) {
    py::list result;
    for (const TokenLogprob & item : logprobs) {
        py::list top;
        for (const TopLogprob & other : item.top) {
            top.append(py::make_tuple(other.token, other.logprob, py::bytes(other.bytes)));
        }
        result.append(py::make_tuple(item.token, item.logprob, py::bytes(item.bytes), top));
    }
    return result;
}

py::tuple to_python(const Delta & delta) {
    return py::make_tuple(0, delta.id, delta.text, delta.n_tokens, to_python(delta.logprobs));
}

py::tuple to_python(const Finish & finish) {
    const auto usage =
        py::make_tuple(finish.usage.prompt_tokens, finish.usage.completion_tokens, finish.usage.cached_tokens);
    const auto timings = py::make_tuple(finish.timings.queue_ms, finish.timings.prefill_ms, finish.timings.decode_ms);
    py::object error   = py::none();
    if (finish.reason == FinishReason::error || finish.reason == FinishReason::timeout) {
        error = py::make_tuple(error_code_name(finish.error_code), finish.error_message);
    }
    py::object embedding = py::none();
    if (!finish.embedding.empty()) {
        embedding = py::bytes(reinterpret_cast<const char *>(finish.embedding.data()),
                              finish.embedding.size() * sizeof(float));
    }
    return py::make_tuple(1, finish.id, finish_reason_name(finish.reason), usage, timings, finish.stop_match, error,
                          embedding);
}

py::list to_python(const std::vector<Event> & events) {
    py::list result(events.size());
    for (size_t i = 0; i < events.size(); ++i) {
        result[i] = std::visit([](const auto & event) { return to_python(event); }, events[i]);
    }
    return result;
}

// ---- the engine -------------------------------------------------------------------------------------------------

std::vector<std::vector<Token>> read_prompts(const py::sequence & prompts, const char * field) {
    std::vector<std::vector<Token>> result;
    for (const py::handle prompt : prompts) {
        result.push_back(read_list(field, prompt, 0, read_token));
    }
    return result;
}

// A load that Python watches: signals are handled meanwhile, and progress is reported at most once per percent. An
// exception of either stops the load, and is kept until the GIL is held again.
class WatchedLoad {
public:
    explicit WatchedLoad(py::object progress) : progress_(std::move(progress)) {}

    // Without the GIL. Python handles signals in its main thread, which may be the one that waits here.
    std::shared_ptr<Model> run(const std::string & path, const EngineOptions & options) {
        auto loading = start_loading(path, options, [this](float fraction) { return !stopped_ && report(fraction); });
        while (loading.wait_for(kSignalInterval) != std::future_status::ready) {
            asked([] {
                if (PyErr_CheckSignals() != 0) {
                    throw py::error_already_set();
                }
                return true;
            });
        }
        std::shared_ptr<Model> model = loading.get();
        if (stopped_) {
            throw Error(ErrorCode::service_unavailable, "Loading the model was cancelled.");
        }
        return model;
    }

    void rethrow() {
        if (error_) {
            throw py::error_already_set(*error_);
        }
    }

private:
    static constexpr std::chrono::milliseconds kSignalInterval{20};

    bool report(float fraction) {
        const int percent = static_cast<int>(fraction * 100);
        if (progress_.is_none() || percent == percent_) {
            return true;
        }
        percent_ = percent;
        return asked([&] { return py::cast<bool>(progress_(fraction)); });
    }

    // What Python answers; false from the first exception on.
    template <class Ask>
    bool asked(Ask ask) {
        const py::gil_scoped_acquire gil;
        if (stopped_) {
            return false;
        }
        try {
            return ask();
        } catch (py::error_already_set & error) {
            error_   = std::make_unique<py::error_already_set>(error);
            stopped_ = true;
            return false;
        }
    }

    py::object                             progress_;
    int                                    percent_ = -1;
    std::atomic<bool>                      stopped_{false};
    std::unique_ptr<py::error_already_set> error_;  // guarded by the GIL
};

class PyEngine {
public:
    PyEngine(const std::string & path, const py::dict & fields, py::object progress) {
        const auto  options = read_fields<EngineOptions>(kEngineFields, fields);
        WatchedLoad load(std::move(progress));
        try {
            const py::gil_scoped_release     nogil;
            prepare_prefix_directory(options);
            const std::shared_ptr<Model>     model = load.run(path, options);
            std::unique_ptr<Model>           draft = load_draft_model(*model, options);
            info_                                  = model->info();
            context_size_                          = model->context_size();
            max_token_bytes_                       = model->vocabulary().max_token_bytes();
            memory_                                = model->memory();
            memory_ += draft ? draft->memory() : MemoryEstimate{};
            engine_ = std::make_unique<Engine>(model, options, std::move(draft), open_prefix_file(path, options));
        } catch (const Error &) {
            load.rethrow();
            throw;
        }
    }

    ~PyEngine() {
        const py::gil_scoped_release nogil;
        if (engine_ && engine_->forked()) {
            // Its parts would wait for a thread that is not there; memory goes when the process does.
            [[maybe_unused]] const Engine * kept = engine_.release();
        }
        engine_.reset();
    }

    std::vector<Token> tokenize(const std::string & text, bool add_special, bool parse_special) const {
        const auto model = engine_->model();
        return model->vocabulary().tokenize(text, add_special, parse_special);
    }

    py::str detokenize(const std::vector<Token> & tokens, bool render_special) const {
        const auto model = engine_->model();
        for (Token token : tokens) {
            if (token < 0 || token >= info_.n_vocab) {
                throw Error(ErrorCode::invalid_request, "A token id is outside the vocabulary.", "tokens");
            }
        }
        const std::string text = model->vocabulary().detokenize(tokens, render_special);
        return py::reinterpret_steal<py::str>(
            PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
    }

    py::tuple render_chat(const std::vector<std::pair<std::string, std::string>> & messages) {
        ChatTemplate::Prompt prompt;
        {
            const py::gil_scoped_release nogil;
            std::vector<ChatMessage>     chat;
            for (const auto & [role, content] : messages) {
                chat.push_back({role, content});
            }
            prompt = engine_->chat().chat_template->render(chat);
        }
        return py::make_tuple(prompt.tokens, prompt.stop);
    }

    std::vector<RequestId> submit(const py::sequence & prompts, const py::sequence & sampling, int32_t priority,
                                  std::optional<double> timeout_s, uint64_t cache_salt) {
        if (prompts.size() != sampling.size()) {
            throw Error(ErrorCode::internal_error, "submit() needs one sampling mapping for each prompt.");
        }
        std::vector<GenerationSpec> specs;
        auto                        tokens = read_prompts(prompts, "prompt");
        for (size_t i = 0; i < tokens.size(); ++i) {
            auto params = read_fields<SamplingParams>(kSamplingFields, py::dict(sampling[i]));
            specs.push_back({std::move(tokens[i]), std::move(params), priority, timeout_s, cache_salt});
        }
        const py::gil_scoped_release nogil;
        return engine_->submit(std::move(specs));
    }

    std::vector<RequestId> submit_embeddings(const py::sequence & inputs, int32_t priority,
                                             std::optional<double> timeout_s) {
        std::vector<EmbeddingSpec> specs;
        for (auto & tokens : read_prompts(inputs, "input")) {
            specs.push_back({std::move(tokens), priority, timeout_s});
        }
        const py::gil_scoped_release nogil;
        return engine_->submit_embeddings(std::move(specs));
    }

    void cancel(const std::vector<RequestId> & ids) {
        const py::gil_scoped_release nogil;
        engine_->cancel(ids);
    }

    py::list drain() { return engine_->forked() ? py::list() : to_python(engine_->events().drain()); }

    bool wait(double timeout_s) {
        const py::gil_scoped_release nogil;
        return engine_->events().wait(std::chrono::duration<double>(timeout_s));
    }

    void close(double grace_s) {
        const py::gil_scoped_release nogil;
        engine_->close(grace_s);
    }

    py::dict info() const { return to_dict(info_); }
    py::dict memory() const { return to_dict(memory_); }
    int32_t  context_size() const { return context_size_; }
    size_t   max_token_bytes() const { return max_token_bytes_; }
    int      wake_fd() const { return engine_->events().fd(); }
    py::dict stats() const { return to_dict(engine_->stats()); }

private:
    std::unique_ptr<Engine> engine_;
    ModelInfo               info_;
    MemoryEstimate          memory_;
    int32_t                 context_size_    = 0;
    size_t                  max_token_bytes_ = 0;
};

// ---- files ------------------------------------------------------------------------------------------------------

py::list to_python(const std::vector<TensorInfo> & tensors) {
    py::list result;
    for (const TensorInfo & tensor : tensors) {
        const auto size = static_cast<Py_ssize_t>(tensor.name.size());  // of any bytes
        const auto name = py::reinterpret_steal<py::str>(PyUnicode_DecodeUTF8(tensor.name.data(), size, "replace"));
        result.append(py::make_tuple(name, tensor.type, tensor.shape, tensor.bytes));
    }
    return result;
}

void bind_files(py::module_ & m) {
    using namespace py::literals;
    m.def("list_tensors", [](const std::string & path) {
        std::vector<TensorInfo> tensors;
        {
            const py::gil_scoped_release nogil;
            tensors = list_tensors(path, read_header(path));
        }
        return to_python(tensors);
    }, "path"_a);
    m.def("file_types", &file_types);
    m.def("plan_quantization", [](const std::string & source, const std::string & type, bool leave_output, bool pure,
                                  const std::string & imatrix) {
        QuantizePlan plan;
        {
            const py::gil_scoped_release nogil;
            plan = plan_quantization(source, {type, 0, true, leave_output, pure, imatrix});
        }
        return py::make_tuple(plan.tensor_bytes, plan.requantizes, plan.needs_imatrix);
    }, "source"_a, "type"_a, "leave_output"_a = false, "pure"_a = false, "imatrix"_a = "");
    m.def("quantize", [](const std::string & source, const std::string & target, const std::string & type,
                         int32_t threads, bool allow_requantize, bool leave_output, bool pure,
                         const std::string & imatrix, const std::function<void(int32_t, int32_t)> & progress) {
        const py::gil_scoped_release nogil;
        return quantize(source, target, {type, threads, allow_requantize, leave_output, pure, imatrix}, progress);
    }, "source"_a, "target"_a, "type"_a, "threads"_a = 0, "allow_requantize"_a = false, "leave_output"_a = false,
       "pure"_a = false, "imatrix"_a = "", "progress"_a = py::none());
    m.def("measure_perplexity", [](const std::string & path, const py::dict & fields, const std::string & text) {
        const auto options = read_fields<EngineOptions>(kEngineFields, fields);
        Perplexity result;
        {
            const py::gil_scoped_release nogil;
            result = measure_perplexity(path, options, text);
        }
        return py::make_tuple(result.mean_nll, result.n_tokens);
    }, "path"_a, "options"_a, "text"_a);
}

void bind_engine(py::module_ & m) {
    using namespace py::literals;
    py::class_<PyEngine>(m, "Engine")
        .def(py::init<const std::string &, const py::dict &, py::object>(), "path"_a, "options"_a = py::dict(),
             "progress"_a = py::none())
        .def_property_readonly("info", &PyEngine::info)
        .def_property_readonly("context_size", &PyEngine::context_size)
        .def_property_readonly("max_token_bytes", &PyEngine::max_token_bytes)
        .def_property_readonly("memory", &PyEngine::memory)
        .def_property_readonly("wake_fd", &PyEngine::wake_fd)
        .def("tokenize", &PyEngine::tokenize, "text"_a, "add_special"_a = true, "parse_special"_a = true,
             py::call_guard<py::gil_scoped_release>())
        .def("detokenize", &PyEngine::detokenize, "tokens"_a, "render_special"_a = false)
        .def("render_chat", &PyEngine::render_chat, "messages"_a)
        .def("submit", &PyEngine::submit, "prompts"_a, "sampling"_a, "priority"_a = 0, "timeout_s"_a = py::none(),
             "cache_salt"_a = 0)
        .def("submit_embeddings", &PyEngine::submit_embeddings, "inputs"_a, "priority"_a = 0,
             "timeout_s"_a = py::none())
        .def("cancel", &PyEngine::cancel, "sequence_ids"_a)
        .def("drain", &PyEngine::drain)
        .def("wait", &PyEngine::wait, "timeout_s"_a)
        .def("stats", &PyEngine::stats)
        .def("close", &PyEngine::close, "grace_s"_a = 0.0);
}

}  // namespace
}  // namespace inferno

PYBIND11_MODULE(_core, m) {
    using namespace inferno;
    using namespace py::literals;
    // Found out before anything is begun: without CPU code for this processor the import fails, with that sentence.
    m.attr("cpu_code") = cpu_code();
    py::register_exception_translator([](std::exception_ptr pointer) {
        try {
            if (pointer) {
                std::rethrow_exception(pointer);
            }
        } catch (const Error & error) {
            raise_python(error);
        }
    });
    m.def("sampling_fields", [] { return describe<SamplingParams>(kSamplingFields); });
    m.def("engine_fields", [] { return describe<EngineOptions>(kEngineFields); });
    m.def("validate_sampling", [](const py::dict & fields) {
        return validate_fields<SamplingParams>(kSamplingFields, fields, check_grammar);
    }, "fields"_a);
    m.def("validate_engine_options", [](const py::dict & fields) {
        return validate_fields<EngineOptions>(kEngineFields, fields, [](const EngineOptions &) {});
    }, "fields"_a);
    m.def("inspect_model", [](const std::string & path) {
        ModelInfo info;
        {
            const py::gil_scoped_release nogil;
            info = inspect_model(path);
        }
        return to_dict(info);
    }, "path"_a);
    m.def("estimate_memory", [](const std::string & path, const py::dict & fields) {
        const auto     options = read_fields<EngineOptions>(kEngineFields, fields);
        MemoryEstimate memory;
        {
            const py::gil_scoped_release nogil;
            memory = estimate_memory(path, options);
            memory += estimate_draft_memory(options);
        }
        return to_dict(memory);
    }, "path"_a, "options"_a = py::dict());
    m.def("gpu_backends", &gpu_backends);
    m.def("devices", [] {
        std::vector<Device> devices;
        {
            const py::gil_scoped_release nogil;
            devices = list_devices();
        }
        py::list result;
        for (const Device & device : devices) {
            result.append(to_dict(device));
        }
        return result;
    });
    m.def("set_log_level", &set_log_level, "level"_a);
    bind_files(m);
    bind_engine(m);
}
