# Calls an R model as its author would have, with nothing of ModelHost's in the process.
#
#     Rscript --vanilla run_r.R <folder of the model> < parameters.csv
#
# Base R reads no JSON, so the data frame of parameters comes as CSV and the one of results goes as CSV to stdout. What
# the model prints goes to stderr.

parameters <- read.csv(file("stdin"), stringsAsFactors = FALSE, check.names = FALSE)

setwd(commandArgs(trailingOnly = TRUE)[1])
sink(stderr())
source("main.R")
if (exists("setup", inherits = FALSE)) {
  setup()
}
result <- score(parameters)
sink()

write.csv(as.data.frame(result), row.names = FALSE)
