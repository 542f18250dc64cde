# plumber with the linear model: `Rscript plumber_lm.R PORT FOLDER`.

fit <- lm(mpg ~ wt + hp, data = mtcars)

router <- plumber::pr_post(plumber::pr(), "/score", function(req) predict(fit, req$body))
plumber::pr_run(router, host = "127.0.0.1", port = as.integer(commandArgs(TRUE)[1]), docs = FALSE, quiet = TRUE)
