# What main.py is, for R, which has no streams.

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
    value <- parameters$x * 31 + constant
    list(constant = constant, echo = parameters$echo, value = value, pid = Sys.getpid(), opened = 0L)
}

deeper <- function(number) deeper(number + 1) + 1
