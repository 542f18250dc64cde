# A linear model, as an analyst would leave it: miles per gallon from weight and horsepower.

fit <- lm(mpg ~ wt + hp, data = mtcars)

# An array of objects in JSON is a data frame here.
score <- function(parameters) stats::predict(fit, parameters)
