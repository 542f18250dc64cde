# Predicts how many miles a car goes on a gallon.

fuel <- NULL # the fitted glm, filled in by setup()

# Once per worker, before its first call.
setup <- function() {
  fuel <<- readRDS("model.rds")
}

# The caller's fault: ModelHost answers INVALID_ARGUMENT with the message.
invalid <- function(...) {
  stop(errorCondition(paste0(...), class = "InvalidParameters"))
}

# `parameters` is an array of objects in JSON, which is a data frame here. So is the result.
score <- function(parameters) {
  columns <- c("wt", "hp", "gearbox")
  if (!is.data.frame(parameters)) {
    invalid("send an array of cars, each with ", paste(columns, collapse = ", "))
  }
  absent <- setdiff(columns, names(parameters))
  if (length(absent) > 0) {
    invalid("the cars have no ", paste(absent, collapse = ", "))
  }
  if (anyNA(parameters[columns])) {
    invalid("every car needs ", paste(columns, collapse = ", "))
  }
  if (!is.numeric(parameters$wt) || !is.numeric(parameters$hp) || any(parameters$hp <= 0)) {
    invalid("wt and hp must be numbers, hp above 0")
  }
  unknown <- setdiff(parameters$gearbox, fuel$xlevels$gearbox)
  if (length(unknown) > 0) {
    invalid("gearbox is ", unknown[1], "; known are ", paste(fuel$xlevels$gearbox, collapse = ", "))
  }

  estimate <- predict(fuel, parameters, type = "response", se.fit = TRUE)
  data.frame(mpg = round(estimate$fit, 2), standard_error = round(estimate$se.fit, 2))
}
