# What main.py is, for R.

constant <- as.numeric(readLines("constant"))

score <- function(parameters) {
    if (!is.null(parameters$do)) {
        switch(parameters$do,
            exit = tools::pskill(Sys.getpid(), 9),
            segfault = tools::pskill(Sys.getpid(), 11),
            quit = quit("no", 0),
            loop = repeat {},
            fall = deeper(0),
            leave = system("setsid sleep 600 >/dev/null 2>&1 &"),
            raise = stop("so it goes"))
    }
    if (!is.null(parameters$sleep)) Sys.sleep(parameters$sleep)
    list(constant = constant, echo = parameters$echo, value = parameters$x * 31 + constant, pid = Sys.getpid())
}

deeper <- function(number) deeper(number + 1) + 1
