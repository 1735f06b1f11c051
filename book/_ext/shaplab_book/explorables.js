// What the explorables of the book compute in the page. ROOT is put in by explorables.py.
(function () {
  const root = document.getElementById(ROOT);
  const data = JSON.parse(root.querySelector("script").textContent);
  const state = structuredClone(data.start);
  const part = (name) => root.querySelector('[data-role="' + name + '"]');
  const show = (x, digits = data.digits) => {
    const text = Math.abs(x).toFixed(digits);
    return (x < 0 && Number(text) !== 0 ? "−" : "") + text;
  };
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const relu = (z) => Math.max(z, 0);

  // All orderings of the numbers 0 to n - 1.
  function orderings(n) {
    if (n === 0) return [[]];
    return orderings(n - 1).flatMap((rest) =>
      [...Array(n).keys()].map((place) => [...rest.slice(0, place), n - 1, ...rest.slice(place)])
    );
  }

  // What each player adds along one ordering, of a table of worths by bits.
  function steps(order, worth) {
    const added = Array(order.length).fill(0);
    let inside = 0;
    for (const player of order) {
      added[player] = worth[inside | (1 << player)] - worth[inside];
      inside |= 1 << player;
    }
    return added;
  }

  const meanOf = (rows) => rows[0].map((_, j) => sum(rows.map((row) => row[j])) / rows.length);
  const shapley = (n, worth) => meanOf(orderings(n).map((order) => steps(order, worth)));
  const table = (n, game) => [...Array(1 << n).keys()].map((bits) => game(bits));

  // Each kind turns its state into a table: values[row][column], and a sentence.
  const KINDS = {
    // A network of one hidden layer of ReLUs: rules beside enumeration.
    network() {
      const { weights, bias, out } = data;
      const n = weights[0].length;
      const row = [...Array(n).keys()].map((i) => state["x" + i]);
      const ref = [...Array(n).keys()].map((i) => state["r" + i]);
      const unit = (k, z) => bias[k] + sum(weights[k].map((w, i) => w * z[i]));
      const net = (z) => sum(out.map((a, k) => a * relu(unit(k, z))));
      const exact = shapley(n, table(n, (bits) =>
        net(row.map((x, i) => ((bits >> i) & 1 ? x : ref[i])))));
      const rescale = Array(n).fill(0);
      const reveal = [Array(n).fill(0), Array(n).fill(0)];
      out.forEach((a, k) => {
        const start = unit(k, ref);
        const change = weights[k].map((w, i) => w * (row[i] - ref[i]));
        const whole = sum(change);
        const slope = Math.abs(whole) > 1e-12
          ? (relu(start + whole) - relu(start)) / whole : start > 0 ? 1 : 0;
        change.forEach((c, i) => { rescale[i] += a * slope * c; });
        [0, whole / n].forEach((line, which) => {
          const upper = change.map((c) => c > line);
          const plus = sum(change.filter((_, i) => upper[i]));
          const minus = sum(change.filter((_, i) => !upper[i]));
          const g = (h) => relu(start + h);
          const up = (g(plus) - g(0) + g(plus + minus) - g(minus)) / 2;
          const down = (g(minus) - g(0) + g(plus + minus) - g(plus)) / 2;
          change.forEach((c, i) => {
            const group = upper[i] ? plus : minus;
            if (Math.abs(group) > 1e-12) reveal[which][i] += (a * (upper[i] ? up : down) * c) / group;
          });
        });
      });
      const columns = [exact, rescale, ...reveal];
      const away = (c) => sum(c.map((v, i) => Math.abs(v - exact[i])));
      const names = data.columns;
      const best = columns.slice(1).map(away);
      return {
        values: row.map((_, i) => columns.map((c) => c[i])),
        say: `The output moves from ${show(net(ref))} to ${show(net(row))}. Distance from the exact ` +
          `values: ${best.map((b, k) => names[k + 1] + " " + show(b)).join(", ")}.`,
      };
    },

    // Three players: which orderings a family and an order leave.
    structures() {
      const all = orderings(3);
      const beside = ([a, b]) => (order) => Math.abs(order.indexOf(a) - order.indexOf(b)) === 1;
      const before = ([a, b]) => (order) => order.indexOf(a) < order.indexOf(b);
      const family = all.filter(beside(data.families[state.family]));
      const ordered = all.filter(before(data.orders[state.order]));
      const columns = [all, family, ordered].map((left) =>
        meanOf(left.map((order) => steps(order, data.worth))));
      const word = (order) => order.map((p) => data.rows[p][0]).join("");
      return {
        values: data.rows.map((_, i) => columns.map((c) => c[i])),
        say: `The family leaves ${family.map(word).join(", ")}; the order leaves ` +
          `${ordered.map(word).join(", ")}.`,
      };
    },

    // Orderings drawn one by one, alone or with their twins.
    orderings() {
      const n = data.rows.length;
      const draw = () => {
        state.random = (Math.imul(state.random, 1664525) + 1013904223) >>> 0;
        return state.random / 4294967296;
      };
      const shuffled = () => {
        const order = [...Array(n).keys()];
        for (let i = n - 1; i > 0; i--) {
          const j = Math.floor(draw() * (i + 1));
          [order[i], order[j]] = [order[j], order[i]];
        }
        return order;
      };
      for (; state.pending > 0; state.pending--) {
        const order = shuffled();
        const first = steps(order, data.worth);
        const twin = steps([...order].reverse(), data.worth);
        const other = steps(shuffled(), data.worth);
        const both = [meanOf([first, other]), meanOf([first, twin])];
        both.forEach((values, which) => state.sums[which].push(values));
      }
      const pairs = state.sums[0].length;
      const told = state.sums.map((rows) => {
        if (!rows.length) return [Array(n).fill(null), Array(n).fill(null)];
        const mean = meanOf(rows);
        const spread = mean.map((m, i) => pairs < 2 ? null
          : 1.96 * Math.sqrt(sum(rows.map((row) => (row[i] - m) ** 2)) / (pairs - 1) / pairs));
        return [mean, spread];
      });
      return {
        values: data.exact.map((v, i) => [v, told[0][0][i], told[1][0][i]]),
        errors: data.exact.map((_, i) => [null, told[0][1][i], told[1][1][i]]),
        say: pairs ? `${2 * pairs} orderings in each column.` : "No ordering drawn yet.",
      };
    },

    // A tree of two questions, a row, and background points that move.
    trees() {
      const [cut0, cut1] = data.cuts;
      const f = ([a, b]) => (a <= cut0 ? data.leaves[0] : b <= cut1 ? data.leaves[1] : data.leaves[2]);
      const row = [state.x0, state.x1];
      const points = state.points;
      if (state.chosen !== state.shown) {
        state.shown = state.chosen;
        [state.p0, state.p1] = points[state.chosen];
        controls();
      }
      points[state.chosen] = [state.p0, state.p1];
      const worth = table(2, (bits) => sum(points.map((p) =>
        f([bits & 1 ? row[0] : p[0], bits & 2 ? row[1] : p[1]]))) / points.length);
      const [all, right, low] = data.covers;
      const inner = (known) => known ? (row[1] <= cut1 ? data.leaves[1] : data.leaves[2])
        : (data.leaves[1] * low + data.leaves[2] * (right - low)) / right;
      const path = table(2, (bits) => bits & 1
        ? (row[0] <= cut0 ? data.leaves[0] : inner(bits & 2))
        : (data.leaves[0] * (all - right) + inner(bits & 2) * right) / all);
      const columns = [shapley(2, worth), shapley(2, path)];
      const at = (v) => 10 + 200 * v;
      const shapes = [
        ["rect", at(0), 10, 200 * cut0, 200, data.leaves[0]],
        ["rect", at(cut0), 10 + 200 * (1 - cut1), 200 * (1 - cut0), 200 * cut1, data.leaves[1]],
        ["rect", at(cut0), 10, 200 * (1 - cut0), 200 * (1 - cut1), data.leaves[2]],
        ...points.map((p, k) => ["dot", at(p[0]), 210 - 200 * p[1], k === state.chosen ? 7 : 5]),
        ["star", at(row[0]), 210 - 200 * row[1]],
      ];
      return {
        values: [0, 1].map((i) => columns.map((c) => c[i])),
        shapes,
        say: `The output is ${show(f(row))}. Its mean over the points is ${show(worth[0])}, and ` +
          `${show(path[0])} by the covers.`,
      };
    },

    // The polynomial of a path: features multiplied in and divided out.
    extend() {
      let grown = [1];
      let taken = 0;
      data.zero.forEach((z, i) => {
        if (!state["on" + i]) return;
        taken += 1;
        const next = Array(grown.length + 1).fill(0);
        grown.forEach((value, k) => {
          next[k] += z * value;
          next[k + 1] += data.one[i] * value;
        });
        grown = next;
      });
      const factorial = (k) => (k < 2 ? 1 : k * factorial(k - 1));
      const weight = (k) => (factorial(k) * factorial(taken - k)) / factorial(taken + 1);
      const size = data.rows.length;
      const values = [...Array(size).keys()].map((k) => k < grown.length
        ? [grown[k], weight(k), grown[k] * weight(k)] : [null, null, null]);
      return {
        values,
        say: `${taken} feature${taken === 1 ? "" : "s"} on the path. The last column sums to ` +
          `${show(sum(grown.map((e, k) => e * weight(k))))}: what these features let through on ` +
          "average when another one arrives, at a random time.",
      };
    },

    // LossSHAP of rows, and their mean.
    sage() {
      const rows = data.losses.slice(0, state.rows);
      const mean = meanOf(rows);
      const count = rows.length;
      const spread = mean.map((m, j) => count < 2 ? null
        : 1.96 * Math.sqrt(sum(rows.map((r) => (r[j] - m) ** 2)) / (count - 1) / count));
      const whole = meanOf(data.losses);
      return {
        values: mean.map((m, j) => [rows[count - 1][j], m, whole[j]]),
        errors: mean.map((_, j) => [null, spread[j], null]),
        say: `Mean of ${count} of ${data.losses.length} rows. Its sum, ${show(sum(mean))}, is how ` +
          "much all features together lower the loss of these rows.",
      };
    },

    // A fault in one feature of a linear model: shares of the squared error, and their evidence.
    stream() {
      const { inputs, labels, weights, ties, reference, bets, limit } = data;
      const start = reference + state.at;
      const told = inputs.map((row, t) => row.map((x, i) =>
        t >= start && i === state.feature ? state.left * x : x));
      const worth = (row, y) => table(weights.length, (bits) =>
        (y - sum(row.map((x, i) => ((bits >> i) & 1 ? weights[i] * x : 0)))) ** 2);
      const games = told.map((row, t) => worth(row, labels[t]));
      const shares = games.map((game) => shapley(weights.length, game));
      const series = weights.map((_, i) => shares.map((row) => row[i]));
      series.push(games.map((game) => game[game.length - 1]));
      // Shares that are equal but for rounding are ties.
      const evidence = (exact) => {
        const stream = exact.map((v) => Math.round(v * 1e9) / 1e9);
        let kept = 1;
        let products = bets.map(() => 0);
        return ties.map((tie, k) => {
          const t = reference + k;
          const past = stream.slice(0, t + 1);
          const above = past.filter((v) => v > stream[t]).length;
          const equal = past.filter((v) => v === stream[t]).length;
          const h = 1 - (2 * (above + tie * equal)) / (t + 1);
          const weight = reference / ((k + reference) * (k + 1 + reference));
          kept -= weight;
          products = products.map((product, b) =>
            (1 + bets[b][0] * Math.sign(h) * Math.abs(h) ** bets[b][1]) * (product + weight));
          return sum(products) / products.length + kept;
        });
      };
      const mean = (list) => (list.length ? sum(list) / list.length : null);
      const found = series.map((stream) => {
        const grown = evidence(stream);
        const rings = grown.findIndex((v) => v >= limit);
        return { stream, grown, after: rings < 0 ? null : rings - state.at };
      });
      const wide = 205 / ties.length;
      const shapes = found.flatMap(({ grown, after }, row) => {
        const floor = 50 * row + 44;
        const high = (v) => floor - 7 * Math.max(0, Math.min(4, Math.log10(v) + 0.5));
        const fault = 10 + wide * state.at;
        const points = grown.map((v, k) => `${(10 + wide * k).toFixed(1)},${high(v).toFixed(1)}`);
        const rung = after === null ? [] : [["star", fault + wide * after, floor - 34]];
        return [
          ["words", 10, floor - 31, data.rows[row]],
          ["line", `10,${high(limit)} 215,${high(limit)}`, "limit"],
          ["line", `${fault},${floor - 30} ${fault},${floor}`, "fault"],
          ["line", points.join(" "), "evidence"],
          ...rung,
        ];
      });
      const rung = found.map(({ after }, k) => [after, data.rows[k]]).filter(([a]) => a !== null);
      rung.sort((a, b) => a[0] - b[0]);
      const words = rung.map(([after, name]) => after < 0
        ? `${name} rings before the fault: a false alarm`
        : `${name} rings ${after + 1} rows into the fault`);
      return {
        values: found.map(({ stream, grown, after }) => [
          mean(stream.slice(0, start)), mean(stream.slice(start)),
          Math.log10(Math.max(...grown)), after === null || after < 0 ? null : after + 1,
        ]),
        shapes,
        plain: true,
        say: words.length ? words.join("; ") + "." : "Nothing rings.",
      };
    },

    // Words of a sentence, on or off: values of those that are on, in several games.
    words() {
      const on = data.rows.map((_, i) => i).filter((i) => state["on" + i]);
      const bits = on.reduce((all, i) => all | (1 << i), 0);
      const count = on.length;
      const factorial = (k) => (k < 2 ? 1 : k * factorial(k - 1));
      const weight = [...Array(count).keys()].map((size) =>
        (factorial(size) * factorial(count - 1 - size)) / factorial(count));
      const sizeOf = (set) => on.filter((i) => (set >> i) & 1).length;
      const columns = data.worths.map((worth) => {
        const values = data.rows.map((_, i) => (state["on" + i] ? 0 : null));
        worth.forEach((before, set) => {
          // Coalitions of words that are on; each word of these that is not in yet may come.
          if ((set & bits) !== set) return;
          on.filter((i) => !((set >> i) & 1)).forEach((i) => {
            values[i] += weight[sizeOf(set)] * (worth[set | (1 << i)] - before);
          });
        });
        return values;
      });
      const outputs = data.columns.map((name, k) => `${name} ${show(data.worths[k][bits])}`);
      const bases = data.columns.map((name, k) => `${name} ${show(data.worths[k][0])}`);
      return {
        values: data.rows.map((_, i) => columns.map((values) => values[i])),
        say: `“${on.map((i) => data.rows[i]).join(" ")}”: output ${outputs.join(", ")}. ` +
          `Without any word: ${bases.join(", ")}.`,
      };
    },

    // What methods ask of a model, and how long that takes.
    methods() {
      const d = state.features;
      const rows = state.background;
      const speed = data.speeds[state.speed];
      // A round has a least number of orderings; two starts and two directions for each.
      const orderings = rows * Math.ceil(data.least / rows);
      const asked = [
        (2 ** d + 1) * rows,
        4 * 4 * (d - 1) * orderings + rows + 3,
        state.model === 0 ? 0 : null,
        state.model === 1 ? 2 * rows + 2 : null,
        state.model === 2 ? 0 : null,
      ];
      const errors = ["none", "told", "none", "not told", "none"];
      const raised = (n) => String(n).replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
      const count = (n) => {
        const power = Math.floor(Math.log10(n));
        return n < 1e7 ? n.toLocaleString("en-US")
          : (n / 10 ** power).toFixed(1) + " · 10" + raised(power);
      };
      const UNITS = [["years", 31557600], ["days", 86400], ["hours", 3600], ["min", 60],
        ["s", 1], ["ms", 0.001]];
      const time = (n) => {
        const seconds = n / speed;
        const [name, unit] = UNITS.find(([, size]) => seconds >= 1.5 * size)
          || UNITS[UNITS.length - 1];
        const many = seconds / unit;
        if (many < 1) return "under 1 ms";
        return `${many < 1e4 ? Math.round(many).toLocaleString("en-US") : count(many)} ${name}`;
      };
      const values = asked.map((n, k) => (n === null ? [null, null, null]
        : [n === 0 ? "none" : count(n), n === 0 ? "its own" : time(n), errors[k]]));
      const quick = asked[0] <= asked[1] || asked[0] <= speed;
      const told = `permutation_shap: ${time(asked[1])}, and it tells how uncertain it is`;
      const say = [
        "interventional_tree_shap: exact, and the model is not asked at all.",
        quick ? "exact_shap: small enough for the definition, which needs no trust."
          : `${told}. deep_shap takes ${time(asked[3])}, but does not know its error: ` +
            "compare a few rows before you rely on it.",
        "additive_shap: exact, from the terms alone.",
        quick ? "exact_shap: small enough for the definition." : `${told}.`,
      ];
      return { values, plain: true, say: "Call " + say[state.model] };
    },

    // Which features have met after each stage.
    butterfly() {
      const n = data.rows.length;
      let reach = [...Array(n).keys()].map((i) => new Set([i]));
      const met = [];
      for (const pairs of data.stages) {
        const next = [];
        pairs.forEach(([a, b]) => {
          next[a] = new Set([...reach[a], ...reach[b]]);
          next[b] = next[a];
        });
        reach = next;
        met.push(reach[state.feature]);
      }
      return {
        values: data.rows.map((_, i) => met.map((set) => (set.has(i) ? 1 : 0))),
        say: `After each stage, feature ${state.feature + 1} can know of ` +
          `${met.map((set) => set.size).join(", ")} features.`,
      };
    },
  };

  function cell(td, value, error, top, digits) {
    td.replaceChildren();
    if (value === null || value === undefined) {
      td.textContent = "–";
      return;
    }
    if (typeof value === "string") {
      td.textContent = value;
      return;
    }
    td.append(show(value, digits)
      + (error === null || error === undefined ? "" : " ± " + show(error, digits)));
    if (top === null) return;
    const bar = document.createElement("span");
    bar.className = "bar" + (value < 0 ? " minus" : "");
    bar.style.width = (100 * Math.abs(value)) / top + "%";
    td.append(bar);
  }

  function draw(shapes) {
    const picture = part("picture");
    if (!picture || !shapes) return;
    picture.replaceChildren();
    const add = (name, attributes, text) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", name);
      Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
      if (text !== undefined) node.textContent = text;
      picture.append(node);
    };
    shapes.forEach(([kind, x, y, a, b, label]) => {
      if (kind === "line") {
        add("polyline", { points: x, class: y });
      } else if (kind === "words") {
        add("text", { x, y, class: "words" }, a);
      } else if (kind === "rect") {
        add("rect", { x, y, width: a, height: b, class: "region" });
        add("text", { x: x + a / 2, y: y + b / 2, class: "label" }, show(label));
      } else if (kind === "dot") {
        add("circle", { cx: x, cy: y, r: a, class: a > 5 ? "chosen" : "point" });
      } else {
        add("path", { d: `M${x} ${y - 8}L${x + 8} ${y}L${x} ${y + 8}L${x - 8} ${y}Z`, class: "row" });
      }
    });
  }

  function controls() {
    root.querySelectorAll("input[type=range]").forEach((input) => {
      input.value = state[input.dataset.name];
      input.nextElementSibling.textContent = show(Number(input.value), Number(input.dataset.digits));
    });
    root.querySelectorAll("button[data-set]").forEach((button) => {
      const pressed = String(state[button.dataset.set]) === button.dataset.value;
      button.setAttribute("aria-pressed", pressed ? "true" : "false");
    });
    root.querySelectorAll("button[data-toggle]").forEach((button) => {
      button.setAttribute("aria-pressed", state[button.dataset.toggle] ? "true" : "false");
    });
  }

  function render() {
    const result = KINDS[data.kind]();
    const numbers = result.values.flat().filter((v) => v !== null).map(Math.abs);
    // Columns in different units have no bars beside each other.
    const top = result.plain ? null : Math.max(1e-300, ...numbers);
    const digits = (j) => (Array.isArray(data.digits) ? data.digits[j] : data.digits);
    root.querySelectorAll("tbody tr").forEach((tr, i) => {
      [...tr.children].slice(1).forEach((td, j) =>
        cell(td, result.values[i][j], result.errors && result.errors[i][j], top, digits(j)));
    });
    draw(result.shapes);
    part("say").textContent = result.say;
    controls();
  }

  root.querySelectorAll("input[type=range]").forEach((input) =>
    input.addEventListener("input", () => {
      state[input.dataset.name] = Number(input.value);
      render();
    }));
  root.querySelectorAll("button[data-set]").forEach((button) =>
    button.addEventListener("click", () => {
      state[button.dataset.set] = Number(button.dataset.value);
      render();
    }));
  root.querySelectorAll("button[data-toggle]").forEach((button) =>
    button.addEventListener("click", () => {
      state[button.dataset.toggle] = !state[button.dataset.toggle];
      render();
    }));
  root.querySelectorAll("button[data-draw]").forEach((button) =>
    button.addEventListener("click", () => {
      state.pending = Number(button.dataset.draw);
      render();
    }));
  root.querySelectorAll("button[data-reset]").forEach((button) =>
    button.addEventListener("click", () => {
      Object.assign(state, structuredClone(data.start));
      render();
    }));
  render();
})();
