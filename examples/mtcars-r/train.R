# Fits the fuel model and writes model.rds: run `Rscript --vanilla train.R` in this folder.

training <- transform(mtcars, gearbox = factor(am, labels = c("automatic", "manual")))
fuel <- glm(mpg ~ wt + log(hp) + gearbox, family = Gamma(link = "log"), data = training)
print(summary(fuel))

saveRDS(fuel, "model.rds")
