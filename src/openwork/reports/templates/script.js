"use strict";
for (const strip of document.querySelectorAll(".text[data-weights]")) {
  const weights = JSON.parse(document.getElementById(strip.dataset.weights).textContent);
  const tokens = [...strip.querySelectorAll(".tok")];
  const says = document.getElementById(strip.getAttribute("aria-describedby"));
  let current = Number(strip.dataset.focus);
  const show = (query) => {
    current = Math.min(Math.max(query, 0), tokens.length - 1);
    tokens.forEach((token, key) => {
      const weight = weights[current][key] ?? 0;
      token.className = `tok a${Math.round(weight / 5)}${key === current ? " query" : ""}`;
      token.title = key <= current ? `${weight} %` : "";
    });
    const best = weights[current].map((weight, key) => [weight, key]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    says.textContent = `“${tokens[current].textContent.trim()}” attends to ` +
      best.map(([weight, key]) => `“${tokens[key].textContent.trim()}” (${weight} %)`).join(", ");
  };
  tokens.forEach((token, index) => {
    token.addEventListener("mouseenter", () => show(index));
    token.addEventListener("click", () => show(index));
  });
  strip.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -tokens.length, End: tokens.length }[event.key];
    if (step) { event.preventDefault(); show(current + step); }
  });
  show(current);
}
for (const button of document.querySelectorAll("button[data-copies]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
    button.textContent = "Copied";
  });
}
