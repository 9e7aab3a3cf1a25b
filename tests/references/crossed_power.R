# Power of the five designs of Westfall, Kenny & Judd (2014), by the noncentrality and mean squares printed with their
# paper (d = 0.5; shares of variance: participant .2, stimulus .2, their slopes .1, their interaction .1, residual .3).
# Rscript crossed_power.R > crossed_power.csv
beyond <- function(ncp, df) pt(qt(.975, df), df, ncp, lower.tail = FALSE) + pt(qt(.025, df), df, ncp)
v <- list(E = .3, P = .2, S = .2, PS = .1, PC = .1, SC = .1)
published <- function(design, p, q, d = .5) with(v, {
  row <- switch(design,
    CCC = list(e = E, ncp = d / sqrt(2 * (E / p / q + 2 * SC / q + 2 * PC / p)), mp = E + q * PC, ms = E + p * SC, a = 1, b = 1),
    CNC = list(e = E + PS, ncp = d / 2 / sqrt((E + PS) / p / q + (S + SC) / q + PC / p),
               mp = E + PS + q / 2 * PC, ms = E + PS + p * (S + SC), a = 1, b = 2),
    NCC = list(e = E + PS, ncp = d / 2 / sqrt((E + PS) / p / q + SC / q + (P + PC) / p),
               mp = E + PS + q * (P + PC), ms = E + PS + p / 2 * SC, a = 2, b = 1),
    NNC = list(e = E + PS, ncp = d / 2 / sqrt(2 * (E + PS) / p / q + (S + SC) / q + (P + PC) / p),
               mp = E + PS + q / 2 * (P + PC), ms = E + PS + p / 2 * (S + SC), a = 2, b = 2),
    counterbalanced = list(e = E + PS, ncp = d / 2 / sqrt((E + PS) / p / q + SC / q + PC / p),
               mp = E + PS + q / 2 * PC, ms = E + PS + p / 2 * SC, a = 2, b = 2))
  df <- with(row, (mp + ms - e)^2 / (e^2 / (p - a) / (q - b) + ms^2 / (q - b) + mp^2 / (p - a)))
  c(ncp = row$ncp, power = beyond(row$ncp, df))
})
cat("design,participants,images,ncp,power\n")
for (design in c("CCC", "CNC", "NCC", "NNC", "counterbalanced"))
  for (pq in list(c(20, 20), c(100, 16), c(30, 60), c(16, 100), c(200, 40)))
    cat(design, pq, sprintf("%.6f", published(design, pq[1], pq[2])), sep = ",", fill = TRUE)
