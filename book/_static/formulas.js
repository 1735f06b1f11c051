// A displayed formula that is wider than its room becomes smaller until it fits, down to small print; a wider one scrolls.
(() => {
  const smallest = 0.54;
  const fit = () => {
    for (const formula of document.querySelectorAll('main mjx-container[display="true"]')) {
      formula.dataset.size ??= formula.style.fontSize || "100%";
      formula.style.fontSize = formula.dataset.size;
      const room = formula.clientWidth;
      const width = formula.querySelector("mjx-math").getBoundingClientRect().width;
      if (room && width > room) {
        formula.style.fontSize = `calc(${formula.dataset.size} * ${Math.max(smallest, (room - 1) / width)})`;
      }
    }
  };
  const soon = () => requestAnimationFrame(fit);
  window.addEventListener("load", async () => {
    if (!window.MathJax?.startup) return;
    await MathJax.startup.promise;
    await document.fonts.ready;
    fit();
    window.addEventListener("resize", soon);
    // Formulas in folded boxes have no width before somebody unfolds them.
    document.addEventListener("click", soon);
  });
})();
