# Does what its caller tells it to: {"do": "raise"}.

score <- function(parameters) {
    if (parameters$do == "reject")
        stop(structure(class = c("InvalidParameters", "error", "condition"),
                       list(message = "age must not be negative", call = sys.call())))
    if (parameters$do == "raise") stop("so it goes")
    if (parameters$do == "return_set") return(list(a = list(1, list(b = function() 1))))
    if (parameters$do == "die") tools::pskill(Sys.getpid(), 9)
    Sys.getpid()
}
