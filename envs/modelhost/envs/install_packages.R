# Install packages into a private library, or check what is there. Base R only; written for R 3.5 to 4.x.
#
#   R --vanilla --slave -f install_packages.R --args install|install-locked|check <library> <plan>
#
# `install-locked` chooses nothing: it installs the versions that are named, and nothing besides.
#
# <plan> is a folder. In it: requirements.tsv (name, operator, version; one line each, tabs between) and repositories.txt
# (one URL per line). Left in it: `lock.txt` (by check), and where something goes wrong `failure.txt`: a word for the
# kind of failure, then the message. The caller excludes the site libraries by R_LIBS and its kin, for the children's sake.
#
# install.packages() is not used: it takes no versions, looks only at the newest ones, overlooks dependencies that are
# there in too old a version, and turns failures into warnings.

options(warn = 1, timeout = 600, useFancyQuotes = FALSE)

arguments <- commandArgs(trailingOnly = TRUE)
library_path <- arguments[[2]]
plan <- arguments[[3]]

say <- function(...) cat(..., "\n", sep = "")

fail <- function(kind, ...) {
  message <- paste0(...)
  writeLines(c(kind, message), file.path(plan, "failure.txt"))
  say("ERROR: ", message)
  quit(save = "no", status = 1)
}

# A table of what is asked for: name, operator ("" for any version), version, by (who asks).
read_requirements <- function() {
  path <- file.path(plan, "requirements.tsv")
  parts <- strsplit(paste0(readLines(path), "\t "), "\t")
  table <- data.frame(
    name = vapply(parts, `[[`, "", 1), operator = vapply(parts, `[[`, "", 2), version = vapply(parts, `[[`, "", 3),
    by = rep("", length(parts)), stringsAsFactors = FALSE
  )
  table[order(table$name, method = "radix"), , drop = FALSE]
}

# The same table for a dependency field of a DESCRIPTION: "R (>= 3.5), methods, Rcpp (>= 1.0.1)".
parse_dependencies <- function(fields, by) {
  entries <- trimws(unlist(strsplit(fields[!is.na(fields)], ",", fixed = TRUE)))
  entries <- gsub("[[:space:]]+", " ", entries[nzchar(entries)])
  pattern <- "^([A-Za-z0-9.]+) ?(\\( ?([<>=!]+) ?([0-9.-]+) ?\\))?$"
  entries <- entries[grepl(pattern, entries)]
  data.frame(
    name = sub(pattern, "\\1", entries), operator = sub(pattern, "\\3", entries),
    version = sub(pattern, "\\4", entries), by = rep(by, length(entries)), stringsAsFactors = FALSE
  )
}

satisfies <- function(version, wanted) {
  for (i in seq_len(nrow(wanted))) {
    if (!nzchar(wanted$operator[[i]])) next
    order <- utils::compareVersion(version, wanted$version[[i]])
    good <- switch(wanted$operator[[i]],
      ">=" = order >= 0, "<=" = order <= 0, ">" = order > 0, "<" = order < 0, "==" = order == 0, "!=" = order != 0,
      FALSE
    )
    if (!good) return(FALSE)
  }
  TRUE
}

in_words <- function(name, wanted) {
  limits <- wanted[nzchar(wanted$operator), , drop = FALSE]
  by <- setdiff(unique(wanted$by), "")
  paste0(
    paste(c(name, paste(limits$operator, limits$version)[nrow(limits) > 0]), collapse = " "),
    if (length(by)) paste0(" (needed by ", paste(by, collapse = ", "), ")") else ""
  )
}

versions_in <- function(folder) {
  packages <- utils::installed.packages(lib.loc = folder, noCache = TRUE)
  stats::setNames(packages[, "Version"], packages[, "Package"])
}

# ---- what the repositories have ----

repositories <- readLines(file.path(plan, "repositories.txt"))
index_cache <- new.env()

# The newest version of every package that this R can use, or (filtered = FALSE) of every package.
repository_index <- function(filtered = TRUE) {
  key <- if (filtered) "filtered" else "all"
  if (is.null(index_cache[[key]])) {
    if (filtered) say("reading the index of ", paste(repositories, collapse = ", "))
    filters <- if (filtered) c("R_version", "OS_type", "subarch", "duplicates") else "duplicates"
    warned <- ""
    unreachable <- function(...) {
      fail("unreachable", "a package repository cannot be read: ", gsub("[[:space:]]+", " ", paste0(...)))
    }
    index_cache[[key]] <- withCallingHandlers(
      tryCatch(
        utils::available.packages(utils::contrib.url(repositories, "source"), type = "source", filters = filters),
        error = function(e) unreachable(if (nzchar(warned)) warned else conditionMessage(e))
      ),
      warning = function(w) {
        warned <<- conditionMessage(w)
        if (grepl("unable to access index", warned, fixed = TRUE)) unreachable(warned)
      }
    )
  }
  index_cache[[key]]
}

# Download the first of several URLs that works; "" if none does.
download_first <- function(urls) {
  for (url in urls) {
    target <- file.path(plan, basename(url))
    status <- tryCatch(
      suppressWarnings(utils::download.file(url, target, mode = "wb", quiet = TRUE)),
      error = function(e) 1L
    )
    if (identical(as.integer(status), 0L) && file.exists(target)) return(target)
    unlink(target)
  }
  ""
}

# A version that need not be the newest: its archive, and what it depends on. NULL if no repository has it.
fetched <- new.env()
fetch_version <- function(name, version) {
  key <- paste(name, version)
  if (is.null(fetched[[key]])) {
    file <- paste0(name, "_", version, ".tar.gz")
    places <- utils::contrib.url(repositories, "source")
    archive <- download_first(c(rbind(paste0(places, "/", file), paste0(places, "/Archive/", name, "/", file))))
    if (!nzchar(archive)) return(NULL)
    unpacked <- tempfile("description")
    utils::untar(archive, files = paste0(name, "/DESCRIPTION"), exdir = unpacked)
    description <- read.dcf(file.path(unpacked, name, "DESCRIPTION"))
    fetched[[key]] <- list(
      name = name, version = version, archive = archive,
      dependencies = parse_dependencies(dependency_fields(description[1, ]), name)
    )
  }
  fetched[[key]]
}

dependency_fields <- function(row) {
  row[intersect(c("Depends", "Imports", "LinkingTo"), names(row))]
}

# ---- which versions ----

this_r <- paste(R.version$major, R.version$minor, sep = ".")
own <- versions_in(.Library)
part_of_r <- rownames(utils::installed.packages(.Library, priority = "base"))

# What to install, from its row in the index.
from_index <- function(name, current) {
  file <- if ("File" %in% names(current) && !is.na(current[["File"]])) {
    current[["File"]]
  } else {
    paste0(name, "_", current[["Version"]], ".tar.gz")
  }
  list(
    name = name, version = current[["Version"]], url = paste0(current[["Repository"]], "/", file),
    dependencies = parse_dependencies(dependency_fields(current), name)
  )
}

# What to install for a package: NULL if R's own library has it.
choose <- function(name, wanted) {
  if (name %in% names(own) && satisfies(own[[name]], wanted)) return(NULL)
  if (name %in% part_of_r) {
    fail("unavailable", in_words(name, wanted), " cannot be had: ", name, " is part of R ", this_r)
  }
  index <- repository_index()
  current <- if (name %in% rownames(index)) index[name, ] else NULL
  if (!is.null(current) && satisfies(current[["Version"]], wanted)) return(from_index(name, current))
  pins <- unique(wanted$version[wanted$operator == "=="])
  if (length(pins) == 1 && satisfies(pins, wanted)) {
    found <- fetch_version(name, pins)
    if (!is.null(found)) return(found)
  }
  explain_missing(name, wanted, current)
}

explain_missing <- function(name, wanted, current) {
  everything <- repository_index(filtered = FALSE)
  if (!is.null(current)) {
    fail("unavailable", in_words(name, wanted), " is not in the repositories; the newest version there is ",
         current[["Version"]])
  }
  if (name %in% rownames(everything)) {
    needs <- parse_dependencies(everything[name, "Depends"], name)
    needs <- needs[needs$name == "R", , drop = FALSE]
    fail("r-version", in_words(name, wanted), " is not available for R ", this_r, ": the newest version, ",
         everything[name, "Version"], ", needs R ", paste(needs$operator, needs$version, collapse = ", "))
  }
  fail("unavailable", in_words(name, wanted), " is in none of the repositories")
}

# Choose for what is asked, then for what that depends on, until nobody asks for anything new.
resolve <- function(wanted) {
  repeat {
    chosen <- list()
    queue <- unique(wanted$name)
    while (length(queue)) {
      name <- queue[[1]]
      queue <- queue[-1]
      choice <- choose(name, wanted[wanted$name == name, , drop = FALSE])
      if (is.null(choice)) next
      chosen[[name]] <- choice
      needs <- choice$dependencies
      for_r <- needs[needs$name == "R", , drop = FALSE]
      if (!satisfies(this_r, for_r)) {
        for_r$by <- ""
        fail("r-version", name, " ", choice$version, " needs ", in_words("R", for_r), ", this is R ", this_r)
      }
      queue <- unique(c(queue, setdiff(needs$name, c("R", names(chosen), wanted$name))))
      chosen[[name]]$needs <- setdiff(needs$name, "R")
    }
    asked <- do.call(rbind, c(list(wanted), lapply(chosen, function(one) {
      one$dependencies[one$dependencies$name != "R", , drop = FALSE]
    })))
    asked <- unique(asked)
    if (nrow(asked) == nrow(wanted)) return(chosen)
    wanted <- asked
  }
}

# Dependencies first.
in_order <- function(chosen) {
  ordered <- character()
  while (length(ordered) < length(chosen)) {
    ready <- Filter(function(name) {
      !(name %in% ordered) && all(intersect(chosen[[name]]$needs, names(chosen)) %in% ordered)
    }, names(chosen))
    if (!length(ready)) fail("unavailable", "packages depend on each other in a circle: ",
                             paste(setdiff(names(chosen), ordered), collapse = ", "))
    ordered <- c(ordered, ready)
  }
  chosen[ordered]
}

# ---- the two commands ----

install <- function(wanted) put(in_order(resolve(wanted)))

install_locked <- function(wanted) {
  index <- repository_index()
  chosen <- lapply(seq_len(nrow(wanted)), function(i) {
    name <- wanted$name[[i]]
    version <- wanted$version[[i]]
    one <- if (name %in% rownames(index) && identical(index[[name, "Version"]], version)) {
      from_index(name, index[name, ])
    } else {
      fetch_version(name, version)
    }
    if (is.null(one)) fail("locked", name, " ", version, ", which was locked, is in none of the repositories any more")
    one$needs <- setdiff(one$dependencies$name, "R")
    one
  })
  put(in_order(stats::setNames(chosen, wanted$name)))
}

# Download what is not here yet, then install in the order given.
put <- function(chosen) {
  for (i in seq_along(chosen)) {
    one <- chosen[[i]]
    if (is.null(one$archive)) {
      chosen[[i]]$archive <- download_first(one$url)
      if (!nzchar(chosen[[i]]$archive)) fail("unreachable", one$url, " cannot be downloaded")
    }
  }
  for (i in seq_along(chosen)) {
    one <- chosen[[i]]
    say("installing ", one$name, " ", one$version, " (", i, " of ", length(chosen), ")")
    status <- system2(
      file.path(R.home("bin"), "R"),
      c("CMD", "INSTALL", "--no-docs", "-l", shQuote(library_path), shQuote(one$archive))
    )
    if (status != 0) fail("install", one$name, " ", one$version, " cannot be installed")
  }
}

check <- function(wanted) {
  for (name in unique(wanted$name)) {
    problem <- tryCatch(
      {
        loadNamespace(name)
        NULL
      },
      error = function(e) conditionMessage(e)
    )
    if (!is.null(problem)) fail("load", name, " does not load: ", gsub("[[:space:]]+", " ", problem))
    version <- as.character(getNamespaceVersion(name))
    asked <- wanted[wanted$name == name, , drop = FALSE]
    if (!satisfies(version, asked)) fail("load", in_words(name, asked), " was asked for, but ", version, " is loaded")
  }
  there <- versions_in(library_path)
  writeLines(sort(sprintf("%s==%s", names(there), there), method = "radix"), file.path(plan, "lock.txt"))
}

switch(arguments[[1]],
  "install" = install(read_requirements()),
  "install-locked" = install_locked(read_requirements()),
  "check" = check(read_requirements())
)
