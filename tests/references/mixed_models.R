# Reference numbers for the mixed-model engine, from R's lme4, lmerTest, ordinal and emmeans.
#
#   Rscript tests/references/mixed_models.R simulate   writes simulated.csv, then mixed_models.json
#   Rscript tests/references/mixed_models.R            writes mixed_models.json from simulated.csv as it stands
#   Rscript tests/references/mixed_models.R data DIR   writes the published tables as CSV into DIR, for the slow test
#
# The published tables belong to these packages (GPL) and are not kept here; their numbers are.
suppressPackageStartupMessages({library(lme4); library(lmerTest); library(ordinal); library(emmeans)})
folder <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
words <- commandArgs(trailingOnly = TRUE)

published <- function() {
  data(wine, package = "ordinal", envir = environment())
  list(sleepstudy = sleepstudy, Penicillin = Penicillin, Pastes = Pastes, InstEval = InstEval, VerbAgg = VerbAgg,
       cbpp = transform(cbpp, share = incidence / size), grouseticks = grouseticks, wine = wine)
}

if (length(words) && words[1] == "data") {
  tables <- published()
  for (name in names(tables)) write.csv(tables[[name]], file.path(words[2], paste0(name, ".csv")), row.names = FALSE)
  quit()
}

simulate_table <- function() {
  set.seed(20261121)
  n <- 720
  table <- data.frame(
    participant = sprintf("p%02d", rep(1:36, each = 20)), image = sprintf("i%02d", c(replicate(36, sample(24, 20)))),
    x = round(rnorm(n), 3), cond = sample(c("plain", "smile", "frown"), n, TRUE), w = round(runif(n, 0.5, 2), 2),
    o = round(rnorm(n), 2), exposure = round(runif(n, 1, 4), 2))
  table$lab <- sprintf("l%d", (as.integer(factor(table$participant)) - 1) %/% 6 + 1)
  p <- as.integer(factor(table$participant)); i <- as.integer(factor(table$image)); l <- as.integer(factor(table$lab))
  slopes <- function(k, sd0, sd1, r) { a <- rnorm(k); cbind(sd0 * a, sd1 * (r * a + sqrt(1 - r^2) * rnorm(k))) }
  up <- slopes(36, 1, 0.5, 0.4); ui <- slopes(24, 0.8, 0.4, -0.3); ul <- rnorm(6, 0, 0.6)
  fixed <- 0.5 * table$x + 0.6 * (table$cond == "smile") - 0.3 * (table$cond == "plain")
  eta <- fixed + up[p, 1] + up[p, 2] * table$x + ui[i, 1] + ui[i, 2] * table$x
  table$y <- round(50 + 3 * (eta + ul[l]) + rnorm(n, 0, 4), 3)
  table$yes <- rbinom(n, 1, plogis(eta))
  table$count <- rpois(n, table$exposure * exp(0.6 * eta))
  table$likert <- as.integer(cut(eta + rlogis(n), c(-Inf, -1.5, -0.2, 1, 2.2, Inf)))
  table
}

file <- file.path(folder, "simulated.csv")
if (length(words) && words[1] == "simulate") write.csv(simulate_table(), file, row.names = FALSE, quote = FALSE)
sim <- read.csv(file)

tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(maxfun = 1e6, rhoend = 1e-10), check.conv.singular = "ignore")
tight_g <- glmerControl(optimizer = "bobyqa", tolPwrss = 1e-13, optCtrl = list(maxfun = 1e6, rhoend = 1e-9), check.conv.singular = "ignore")

number <- function(v) ifelse(is.na(v) | !is.finite(v), "null", formatC(v, digits = 12, format = "g"))
quoted <- function(v) paste0('"', gsub('"', '\\\\"', v), '"')
rows <- function(...) {
  parts <- list(...)
  one <- function(k) paste0("{", paste0(quoted(names(parts)), ": ", sapply(parts, function(p) p[k]), collapse = ", "), "}")
  paste0("[", paste(sapply(seq_along(parts[[1]]), one), collapse = ",\n     "), "]")
}

record <- function(name, data, formula, family, fit, ...) {
  extra <- list(...)
  if (inherits(fit, "clmm")) {
    co <- coef(summary(fit)); vc <- lapply(VarCorr(fit), function(v) v)
    random <- do.call(rbind, lapply(names(vc), function(g) {
      s <- attr(vc[[g]], "stddev"); r <- attr(vc[[g]], "correlation")
      data.frame(group = g, term = names(s), sd = unname(s), corr = if (length(s) == 2) c(NA, r[2, 1]) else NA)
    }))
    df <- rep(NA, nrow(co))
  } else {
    co <- coef(summary(fit))
    df <- if ("df" %in% colnames(co)) co[, "df"] else rep(NA, nrow(co))
    random <- do.call(rbind, lapply(VarCorr(fit), function(v) {
      s <- attr(v, "stddev"); r <- attr(v, "correlation")
      data.frame(group = "", term = names(s), sd = unname(s), corr = if (length(s) == 2) c(NA, r[2, 1]) else NA)
    }))
    random$group <- rep(sub("\\.[0-9]+$", "", names(VarCorr(fit))), sapply(VarCorr(fit), nrow))
    if (inherits(fit, "lmerMod")) random <- rbind(random, data.frame(group = "Residual", term = "", sd = sigma(fit), corr = NA))
  }
  coefficients <- rows(term = quoted(rownames(co)), estimate = number(co[, 1]), se = number(co[, 2]), df = number(df))
  random <- rows(group = quoted(random$group), term = quoted(random$term), sd = number(random$sd), corr = number(random$corr))
  options <- paste0(sprintf(', "%s": %s', names(extra), unlist(extra)), collapse = "")
  cat(name, "\n", file = stderr())
  sprintf('{"name": "%s", "data": "%s", "formula": %s, "family": "%s"%s,\n   "loglik": %s, "criterion": %s,\n   "coefficients": %s,\n   "random": %s}',
    name, data, quoted(formula), family, if (length(extra)) options else "", number(as.numeric(logLik(fit))),
    number(-2 * as.numeric(logLik(fit))), coefficients, random)
}

gaussian_fit <- function(name, data, formula, table, REML = TRUE, ...) {
  fit <- lmer(as.formula(formula), table, REML = REML, control = tight, ...)
  record(name, data, formula, "gaussian", fit, reml = if (REML) "true" else "false")
}
weighted <- lmer(y ~ cond + offset(o) + (1 | participant) + (1 | image), sim, weights = w, control = tight)
binomial_fit <- function(name, data, formula, table, link) {
  fit <- glmer(as.formula(formula), table, family = binomial(link), control = tight_g)
  record(name, data, formula, "binary", fit, link = quoted(link))
}
ordinal_fit <- function(name, data, formula, table, response, link) {
  table[[response]] <- factor(table[[response]], ordered = TRUE)
  fit <- clmm(as.formula(formula), table, link = link, Hess = TRUE, control = clmm.control(gradTol = 1e-7))
  record(name, data, formula, "ordinal", fit, link = quoted(link))
}

crossed <- "y ~ x * cond + (1 + x | participant) + (1 + x | image)"
tables <- published()
attach(tables)
found <- c(
  gaussian_fit("intercepts", "simulated", "y ~ x + (1 | participant) + (1 | image)", sim),
  gaussian_fit("slopes", "simulated", crossed, sim),
  gaussian_fit("slopes-ml", "simulated", crossed, sim, REML = FALSE),
  gaussian_fit("uncorrelated", "simulated", "y ~ x + (1 + x || participant) + (1 | image)", sim),
  gaussian_fit("nested", "simulated", "y ~ x + (1 | lab/participant)", sim),
  gaussian_fit("three", "simulated", "y ~ x + (1 | participant) + (0 + x | image) + (1 | lab)", sim),
  gaussian_fit("interaction", "simulated", "y ~ cond + (1 | participant) + (1 | participant:cond) + (1 | image)", sim),
  gaussian_fit("transformed", "simulated", "log(y) ~ I(x^2) + x + cond + (1 | participant) + (1 | image)", sim),
  record("weighted", "simulated", "y ~ cond + offset(o) + (1 | participant) + (1 | image)", "gaussian", weighted,
         reml = "true", weights = '"w"'),
  binomial_fit("logit", "simulated", "yes ~ x + cond + (1 | participant) + (1 | image)", sim, "logit"),
  binomial_fit("logit-slopes", "simulated", "yes ~ x + (1 + x | participant) + (1 + x | image)", sim, "logit"),
  binomial_fit("probit", "simulated", "yes ~ x + cond + (1 | participant) + (1 | image)", sim, "probit"),
  record("poisson", "simulated", "count ~ x + cond + offset(log(exposure)) + (1 + x | participant) + (1 | image)", "poisson",
         glmer(count ~ x + cond + offset(log(exposure)) + (1 + x | participant) + (1 | image), sim, family = poisson,
               control = tight_g)),
  ordinal_fit("ordinal", "simulated", "likert ~ x + cond + (1 | participant) + (1 | image)", sim, "likert", "logit"),
  ordinal_fit("ordinal-slopes", "simulated", "likert ~ x + (1 + x | participant) + (1 | image)", sim, "likert", "logit"),
  ordinal_fit("ordinal-probit", "simulated", "likert ~ x + cond + (1 | participant) + (1 | image)", sim, "likert", "probit"),
  gaussian_fit("sleepstudy", "sleepstudy", "Reaction ~ Days + (Days | Subject)", sleepstudy),
  gaussian_fit("sleepstudy-ml", "sleepstudy", "Reaction ~ Days + (Days || Subject)", sleepstudy, REML = FALSE),
  gaussian_fit("Penicillin", "Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", Penicillin),
  gaussian_fit("Pastes", "Pastes", "strength ~ 1 + (1 | batch/cask)", Pastes),
  gaussian_fit("InstEval", "InstEval", "y ~ service + (1 | s) + (1 | d) + (1 | dept)", InstEval),
  binomial_fit("VerbAgg", "VerbAgg", "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)", VerbAgg, "logit"),
  record("cbpp", "cbpp", "share ~ C(period) + (1 | herd)", "binary",
         glmer(incidence / size ~ C(period) + (1 | herd), cbpp, family = binomial, weights = size, control = tight_g),
         link = '"logit"', weights = '"size"'),
  record("grouseticks", "grouseticks", "TICKS ~ C(YEAR) + HEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)", "poisson",
         glmer(TICKS ~ C(YEAR) + HEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION),
               transform(grouseticks, HEIGHT = HEIGHT / 100), family = poisson, control = tight_g)),
  ordinal_fit("wine", "wine", "rating ~ temp + contact + (1 | judge)", wine, "rating", "logit"),
  ordinal_fit("wine-probit", "wine", "rating ~ temp + contact + (1 | judge) + (1 | bottle)", wine, "rating", "probit")
)
slopes <- lmer(as.formula(crossed), sim, control = tight)
means <- as.data.frame(emmeans(slopes, ~ cond, lmer.df = "satterthwaite"))
pair <- as.data.frame(pairs(emmeans(slopes, ~ cond, lmer.df = "satterthwaite"), adjust = "none"))
effects <- ranef(slopes, condVar = TRUE)$image
spread <- t(apply(attr(effects, "postVar"), 3, function(v) sqrt(diag(v))))
intervals <- confint(lmer(y ~ x + (1 | participant) + (1 | image), sim, REML = FALSE, control = tight), quiet = TRUE)
binary <- confint(glmer(yes ~ x + (1 | participant), sim, family = binomial, control = tight_g), quiet = TRUE)
body <- sprintf('{"versions": {"R": "%s", "lme4": "%s", "lmerTest": "%s", "ordinal": "%s", "emmeans": "%s"},\n "models": [\n  %s],\n "means": %s,\n "pairs": %s,\n "effects": %s,\n "profile": %s,\n "profile_binary": %s}\n',
  as.character(getRversion()), packageVersion("lme4"), packageVersion("lmerTest"), packageVersion("ordinal"), packageVersion("emmeans"),
  paste(found, collapse = ",\n  "),
  rows(level = quoted(as.character(means$cond)), estimate = number(means$emmean), se = number(means$SE), df = number(means$df)),
  rows(contrast = quoted(as.character(pair$contrast)), estimate = number(pair$estimate), se = number(pair$SE), df = number(pair$df)),
  rows(level = quoted(rownames(effects)), intercept = number(effects[, 1]), slope = number(effects[, 2]),
       intercept_sd = number(spread[, 1]), slope_sd = number(spread[, 2])),
  rows(parameter = quoted(rownames(intervals)), low = number(intervals[, 1]), high = number(intervals[, 2])),
  rows(parameter = quoted(rownames(binary)), low = number(binary[, 1]), high = number(binary[, 2])))
cat(body, file = file.path(folder, "mixed_models.json"))
