// Turns the slides of a deck: keys, buttons, a swipe, and the address (#s5).
(function () {
  const slides = [...document.querySelectorAll(".slide")];
  const told = document.querySelector("nav output");
  let now = 0;

  function show(number, remember = true) {
    now = Math.max(0, Math.min(slides.length - 1, number));
    slides.forEach((slide, k) => {
      slide.classList.toggle("shown", k === now);
      slide.inert = k !== now;
    });
    slides[now].scrollTop = 0;
    fit(slides[now]);
    told.textContent = `${now + 1} / ${slides.length}`;
    if (remember) history.replaceState(null, "", `#s${now + 1}`);
  }

  // What is too long for the screen gets smaller letters, down to a half, and an explorable shrinks as a whole; then
  // it scrolls.
  function fit(slide) {
    const parts = [...slide.children];
    parts.forEach((part) => { part.style.zoom = 1; });
    const fits = () => slide.scrollHeight <= slide.clientHeight;
    const least = slide.classList.contains("play") ? 100 : 50;
    for (let size = 100; size >= least; size -= 5) {
      slide.style.fontSize = size + "%";
      slide.style.setProperty("--room", 0.66 * size + "vh");
      if (fits()) return;
    }
    for (let size = 95; size >= 40 && !fits(); size -= 5) {
      parts.forEach((part) => { part.style.zoom = size / 100; });
    }
  }

  function fromAddress() {
    const found = slides.findIndex((slide) => "#" + slide.id === location.hash);
    show(Math.max(0, found), false);
  }

  const KEYS = {
    ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1,
    Home: -Infinity, End: Infinity,
  };
  document.addEventListener("keydown", (event) => {
    // Sliders and buttons of an explorable keep their keys, and so do the choices of a question.
    if (event.target.closest("input, button, summary, a") || event.altKey || event.ctrlKey) return;
    if (!(event.key in KEYS)) return;
    event.preventDefault();
    show(now + KEYS[event.key]);
  });
  document.querySelectorAll("details").forEach((choice) =>
    choice.addEventListener("toggle", () => fit(slides[now])));
  document.querySelectorAll("nav button").forEach((button) =>
    button.addEventListener("click", () => show(now + Number(button.dataset.step))));
  let start = null;
  document.addEventListener("touchstart", (event) => {
    const moves = event.target.closest("input, button, pre, table");
    start = moves ? null : [event.touches[0].clientX, event.touches[0].clientY];
  }, { passive: true });
  document.addEventListener("touchend", (event) => {
    if (!start) return;
    const across = event.changedTouches[0].clientX - start[0];
    const down = event.changedTouches[0].clientY - start[1];
    if (Math.abs(across) > 50 && Math.abs(across) > 2 * Math.abs(down)) show(now - Math.sign(across));
  });
  window.addEventListener("hashchange", fromAddress);
  window.addEventListener("resize", () => fit(slides[now]));
  // Formulas and pictures change the height once they are there.
  window.addEventListener("load", () => {
    if (window.MathJax && MathJax.startup) MathJax.startup.promise.then(() => fit(slides[now]));
    else fit(slides[now]);
  });
  fromAddress();
})();
