# The R side of the R worker: loading a model, calling it, telling its failures.
#
# r_worker.py sources this file into an environment of its own in front of base, out of reach of a model's
# `rm(list = ls())`. The model itself lives in the global environment, as on its author's machine: saved closures and
# formulas name that environment and no other, and packages find the model's S3 methods there.
#
# Runs on R 3.6 and later: nothing newer is used.

about <- function() {
    list(version = paste(R.version$major, R.version$minor, sep = "."), executable = file.path(R.home("bin"), "R"))
}

options(
    warn = 1,              # a warning is printed when it happens, not kept back until R has a prompt again
    keep.source = TRUE     # line numbers in tracebacks
)

# quit() would end the process without a word, in the middle of LOAD or CALL. As an error it says where it was.
local({
    refuse <- function(save = "default", status = 0, runLast = TRUE) {
        stop("a hosted model cannot quit R: its worker belongs to the server", call. = FALSE)
    }
    for (name in c("q", "quit")) {
        unlockBinding(name, baseenv())
        assign(name, refuse, envir = baseenv())
        lockBinding(name, baseenv())
    }
})

# ---- calls that may fail

failed <- new.env()   # returned instead of a value, compared by identity
last <- new.env()     # the failure behind it: `condition` and the `calls` that were open
guarded_calls <- list()   # those that the model may have been in: the frames outside them are ours

# A calling handler, for the calls are still open when it runs.
note <- function(condition) {
    last$condition <- condition
    last$calls <- sys.calls()
}

give_up <- function(condition) {
    # R calls no calling handler when its stack is full.
    if (is.null(last$condition)) last$condition <- condition
    failed
}

# A function of `parameters` that evaluates `call` in `frame` and returns its value, or `failed`. Functions are put
# into its body by value, for the model may define others of the same name.
guarded <- function(call, frame) {
    guarded_calls <<- c(guarded_calls, call)
    body <- bquote(.(tryCatch)(
        .(withCallingHandlers)(.(call), error = .(note), InvalidParameters = .(note)),
        error = .(give_up)
    ))
    # Compiled now: R would do it in the midst of the first calls.
    compiler::cmpfun(eval(call("function", as.pairlist(alist(parameters = )), body), frame))
}

# What went wrong in the last guarded call, of which nothing may be as it should.
explain <- function() {
    condition <- last$condition
    calls <- last$calls
    last$condition <- last$calls <- NULL
    if (is.null(condition)) {
        # A jump to the top level past every handler: stop() with a condition that is no error, or a full stack.
        condition <- simpleError(sub("^Error[^:\n]*: *", "", geterrmessage(), useBytes = TRUE))
    }
    told(condition, calls)
}

# A condition and the calls that were open, if any is known, as an answer tells of them.
told <- function(condition, calls = NULL) {
    message <- tryCatch(
        paste(as.character(conditionMessage(condition)), collapse = "\n"),
        error = function(e) "(the condition's message cannot be had)"
    )
    list(
        exception = class(condition)[1L],
        message = message,
        invalid = inherits(condition, "InvalidParameters"),
        traceback = tryCatch(
            paste(backtrace(calls, conditionCall(condition), message), collapse = "\n"),
            error = function(e) "(the open calls cannot be shown)"
        )
    )
}

# The open calls, outermost first, each on one line with the place that it was called from, and then the error.
backtrace <- function(calls, origin, message) {
    place <- ""
    first <- Position(function(x) any(vapply(guarded_calls, identical, NA, x)), calls)
    calls <- if (!is.na(first)) calls[seq(first, length(calls) - 1L)]   # the last is note() itself
    calls <- Filter(function(x) !identical(x, main_call), calls)
    last_call <- if (length(calls)) calls[[length(calls)]]
    if (is.call(last_call) && identical(last_call[[1L]], quote(.handleSimpleError))) {
        # R's C code calls this for errors of its own, from where they are.
        place <- place_of(last_call)
        calls <- calls[-length(calls)]
    }
    if (length(calls) > 60L) {
        left_out <- as.name(sprintf("... %d more calls ...", length(calls) - 60L))
        calls <- c(calls[1:20], left_out, calls[seq(length(calls) - 39L, length(calls))])
    }
    in_call <- if (is.call(origin) && !identical(origin, main_call)) paste(" in", one_line(origin))
    c(
        if (length(calls)) "Calls, outermost first:",
        vapply(calls, function(x) paste0("  ", place_of(x), one_line(x)), ""),
        paste0(place, "Error", in_call, ": ", message)
    )
}

place_of <- function(call) {
    place <- attr(call, "srcref")
    file <- attr(place, "srcfile")$filename
    if (is.null(file)) "" else sprintf("%s:%d: ", file, place[1L])
}

one_line <- function(code) {
    text <- if (is.name(code)) as.character(code) else deparse(code, width.cutoff = 100L, nlines = 2L)
    if (length(text) > 1L || nchar(text) > 120L) paste(substr(text[1L], 1L, 116L), "...") else text
}

# ---- loading

main_call <- quote(eval(code, globalenv()))
run <- run_batch <- NULL   # guarded calls of the loaded model; run_batch is NULL without a batch hook

notices <- character()
notice <- function(...) notices <<- c(notices, sprintf(...))

# Returns list(batch, setup, warnings), or list(reason, message, traceback, defines).
load_model <- function(path, main_file, name) {
    lines <- readLines(path, warn = FALSE, encoding = "UTF-8")
    if (!all(validUTF8(lines))) {
        lines <- iconv(lines, "CP1252", "UTF-8", sub = "?")
        notice("%s is not UTF-8: it was read as Windows-1252", main_file)
    }
    lines <- sub("^\ufeff", "", lines)
    code <- tryCatch(
        parse(text = lines, keep.source = TRUE, srcfile = srcfilecopy(main_file, lines)),
        error = conditionMessage
    )
    if (is.character(code)) return(refusal("syntax_error", code, code))
    # The variable is for scripts that ask the outermost frame, as under source(), where they are.
    ofile <- path
    if (identical(attempt(main_call, environment()), failed)) return(refusal("import_failed"))

    if (!own(name)) return(refusal("function_not_found", not_found(main_file, name)))
    package <- package_of(name)
    if (!is.null(package)) {
        hides <- sprintf("%s: '%s' hides R's own %s::%s", main_file, name, package, name)
        if (calls_itself(get(name, globalenv()), name)) {
            return(refusal("function_masks_base", sprintf(
                "%s and calls itself by that name: write %s::%s() there, or give the model's function another name",
                hides, package, name
            )))
        }
        notice("%s", hides)
    }

    frame <- new.env(parent = globalenv())
    if (own("setup")) {
        frame$setup_result <- attempt(quote(setup()), globalenv())
        if (identical(frame$setup_result, failed)) return(refusal("setup_failed"))
    }
    hook <- paste0(name, "_batch")
    run <<- prepared(name, frame, main_file)
    run_batch <<- if (own(hook)) prepared(hook, frame, main_file)
    list(batch = own(hook), setup = own("setup"), warnings = as.list(notices))
}

# Why the model cannot be loaded; without a message, because of the last guarded call.
refusal <- function(reason, message = NULL, traceback = "") {
    if (is.null(message)) {
        why <- explain()
        message <- why$message
        traceback <- why$traceback
    }
    list(reason = reason, message = message, traceback = traceback, defines = as.list(defined()))
}

not_found <- function(main_file, name) {
    if (name %in% ls(globalenv(), all.names = TRUE)) return(sprintf("%s: '%s' is not a function", main_file, name))
    known <- defined()
    known <- if (length(known)) paste("it defines:", paste(known, collapse = ", ")) else "it defines no functions"
    sprintf("%s has no function '%s'; %s", main_file, name, known)
}

# Whether the model has a function of that name: what stats or another package has does not count.
own <- function(name) nzchar(name) && exists(name, envir = globalenv(), mode = "function", inherits = FALSE)

defined <- function() Filter(own, ls(globalenv()))

# The guarded call of one of the model's functions, written as tracebacks are to show it. What it requires besides the
# parameters is setup()'s result.
prepared <- function(name, frame, main_file) {
    f <- get(name, globalenv())
    assign(name, f, frame)
    call <- call(name, quote(parameters))
    required <- Filter(function(default) identical(default, quote(expr = )), as.list(formals(args(f))))
    required <- setdiff(names(required), "...")
    if (length(required) > 1L && own("setup")) call[[required[2L]]] <- quote(setup_result)
    if (length(required) > length(call) - 1L) {
        notice("%s: '%s' requires %d arguments and is called with %d",
               main_file, name, length(required), length(call) - 1L)
    }
    guarded(call, frame)
}

# As R_tryEval does for calls: nothing jumps out of this, not even what passes by all handlers on its way to the top.
attempt <- function(call, frame) withRestarts(guarded(call, frame)(), abort = function() failed)

# The package, of those that nobody attaches, that has a function of that name.
package_of <- function(name) {
    for (package in c("base", "stats")) {
        if (name %in% getNamespaceExports(package) && is.function(getExportedValue(package, name))) return(package)
    }
}

# `predict(fit, x)` inside `predict` calls itself; `stats::predict(fit, x)` does not, nor does a local `predict`.
calls_itself <- function(f, name) {
    symbol <- as.name(name)
    called <- name_is_local <- FALSE
    walk <- function(code) {
        if (is.call(code)) {
            called <<- called || identical(code[[1L]], symbol)
            assigns <- identical(code[[1L]], quote(`<-`)) || identical(code[[1L]], quote(`=`))
            name_is_local <<- name_is_local || (assigns && identical(code[[2L]], symbol))
        }
        for (i in seq_along(code)) {
            # Indexed twice: an empty argument, as in x[, 1], cannot be held in a variable.
            if (is.call(code[[i]]) || is.pairlist(code[[i]])) walk(code[[i]])
        }
    }
    walk(body(f))
    called && !name_is_local && !(name %in% names(formals(f)))
}

# ---- values

# Dates and times as ISO 8601. A time has its zone's offset, Z where that is none, and microseconds if it has any.
as_text <- function(x) {
    if (inherits(x, "Date")) return(format(x, "%Y-%m-%d"))
    zone <- attr(x, "tzone")[1L]
    micros <- round(as.numeric(as.POSIXct(x)) * 1e6)
    seconds <- floor(micros / 1e6)
    at <- as.POSIXlt(.POSIXct(seconds), tz = if (is.null(zone)) "" else zone)
    fraction <- sub("\\.?0+$", "", sprintf(".%06.0f", micros - seconds * 1e6))
    offset <- sub("(..)$", ":\\1", format(at, "%z"))
    offset[offset %in% "+00:00"] <- "Z"
    text <- paste0(format(at, "%Y-%m-%dT%H:%M:%S"), fraction, offset)
    text[is.na(seconds)] <- NA
    text
}
