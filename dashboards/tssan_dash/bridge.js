/* The browser side of the dashboard. A classic script, as Dash loads it: no build step.
 *
 *  1. tssan_dash.View: a React component that runs any module of the anywidget shape
 *     (export default { render({ model, el }) }) with state both ways.
 *  2. dash_clientside.tssan_dash: what links the views and the address bar without the server.
 *  3. dashMantineFunctions.tssan_dash: the search in the selects, which knows aliases.
 *  4. The grids follow Mantine's light and dark.
 */
(function () {
  "use strict";
  var React = window.React;

  /* 1 ---------------------------------------------------------------------------------------- */

  var KEPT_BUFFERS = 6;
  var buffers = new Map(); // address -> promise of an ArrayBuffer; the last used is the last

  function fetchBuffer(url) {
    var promise = buffers.get(url);
    if (promise) {
      buffers.delete(url);
    } else {
      promise = fetch(url).then(function (response) {
        if (response.ok) return response.arrayBuffer();
        return response.text().then(function (words) {
          throw new Error(words || "the server answered " + response.status);
        });
      });
      promise.catch(function () { buffers.delete(url); });
    }
    buffers.set(url, promise);
    if (buffers.size > KEPT_BUFFERS) buffers.delete(buffers.keys().next().value);
    return promise;
  }

  function fetchView(source) {
    if (typeof source === "string") source = { url: source };
    return fetchBuffer(source.url).then(function (buffer) {
      var offset = source.offset || 0;
      var length = source.length === undefined ? buffer.byteLength - offset : source.length;
      return new DataView(buffer, offset, length);
    });
  }

  function same(a, b) {
    return JSON.stringify(a) === JSON.stringify(b);
  }

  function createModel(traits, save) {
    var listeners = {};
    var unsaved = {};
    function emit(name) {
      (listeners["change:" + name] || []).slice().forEach(function (listener) {
        listener(model, traits[name]);
      });
    }
    var model = {
      get: function (name) { return traits[name]; },
      set: function (name, value) {
        if (traits[name] === value) return;
        traits[name] = value;
        unsaved[name] = value;
        emit(name);
      },
      save_changes: function () {
        var changes = unsaved;
        unsaved = {};
        if (Object.keys(changes).length) save(changes);
      },
      on: function (event, listener) {
        (listeners[event] = listeners[event] || []).push(listener);
      },
      off: function (event, listener) {
        listeners[event] = (listeners[event] || []).filter(function (one) {
          return listener !== undefined && one !== listener;
        });
      },
      send: function () {
        throw new Error("a view in the dashboard has no kernel to send messages to");
      },
    };
    function receive(name, value) {
      if (same(traits[name], value)) return;
      traits[name] = value;
      emit(name);
    }
    return { model: model, receive: receive };
  }

  var heights = {}; // of the views that have just gone, by id: a page drawn anew does not jump

  function View(props) {
    var box = React.useRef(null);
    var mounted = React.useRef(null);
    var latest = React.useRef(props);
    latest.current = props;

    function unmount() {
      if (mounted.current && typeof mounted.current.cleanup === "function") {
        mounted.current.cleanup();
      }
      mounted.current = null;
    }

    function settle() {
      var node = box.current;
      node.setAttribute("aria-busy", "false");
      setTimeout(function () { node.style.minHeight = ""; }, 100); // a view draws in the next frame
    }

    React.useEffect(function () {
      if (!props.values || !props.buffers) return undefined; // not said yet what to show
      var cancelled = false;
      var names = Object.keys(props.buffers);
      var wanted = names.map(function (name) { return fetchView(props.buffers[name]); });
      box.current.setAttribute("aria-busy", "true");
      Promise.all([import(props.module)].concat(wanted))
        .then(function (loaded) {
          if (cancelled) return undefined;
          // The state of now, not of when the loading began: it may have changed in between.
          var traits = Object.assign({}, props.values, latest.current.state);
          names.forEach(function (name, i) { traits[name] = loaded[i + 1]; });
          var bound = createModel(traits, function (changes) {
            var now = latest.current;
            now.setProps({ state: Object.assign({}, now.state, changes) });
          });
          var el = document.createElement("div");
          unmount();
          box.current.replaceChildren(el);
          mounted.current = { receive: bound.receive };
          return loaded[0].default.render({ model: bound.model, el: el });
        })
        .then(function (cleanup) {
          if (cancelled) {
            if (typeof cleanup === "function") cleanup();
            return;
          }
          mounted.current.cleanup = cleanup;
          settle();
        })
        .catch(function (error) {
          if (cancelled) return;
          unmount();
          var words = document.createElement("p");
          words.setAttribute("role", "alert");
          words.textContent = "This picture cannot be drawn: " + error.message;
          box.current.replaceChildren(words);
          settle();
        });
      return function () { cancelled = true; };
    }, [props.module, JSON.stringify(props.values), JSON.stringify(props.buffers)]);

    React.useLayoutEffect(function () {
      var node = box.current;
      if (heights[props.id]) node.style.minHeight = heights[props.id] + "px";
      return function () {
        heights[props.id] = node.offsetHeight;
        unmount();
      };
    }, []);

    React.useEffect(function () {
      if (!mounted.current) return;
      Object.keys(props.state || {}).forEach(function (name) {
        if (mounted.current) mounted.current.receive(name, props.state[name]);
      });
    }, [props.state]);

    return React.createElement("div", {
      id: props.id, ref: box, role: "group", "aria-label": props.label || undefined,
    });
  }

  window.tssan_dash = Object.assign(window.tssan_dash || {}, { View: View });

  /* 2 ---------------------------------------------------------------------------------------- */

  /* The address is rewritten in place, or a new one laid upon it to which the browser's arrow
   * leads; Dash is not told: it would draw the page anew. */
  function rewriteAddress(changes, lay) {
    var query = new URLSearchParams(window.location.search);
    Object.keys(changes).forEach(function (name) {
      if (changes[name] === null || changes[name] === undefined) query.delete(name);
      else query.set(name, changes[name]);
    });
    var search = query.toString();
    if (search !== window.location.search.slice(1)) {
      if (lay) window.history.pushState({}, "", "?" + search);
      else window.history.replaceState(window.history.state, "", "?" + search);
    }
    var link = document.querySelector("[id$=-export] a[id$=-link]");
    if (link) link.setAttribute("href", window.location.pathname + window.location.search);
  }

  /* Go to other parameters of the page, and tell Dash's pages, which draw it. */
  function goTo(wish) {
    if (!wish) return;
    window.history.pushState({}, "", window.location.pathname + wish.search);
    window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
  }

  /* The address of which Dash knows. Where somebody is led to it (by the browser's arrow or by a
   * link) after pages wrote others, it sees no difference, and is told to draw its page. */
  var known = window.location.pathname + window.location.search;

  function drawWhatDashKnows() {
    var here = window.location.pathname + window.location.search;
    if (here === known) {
      window.dash_clientside.set_props("_pages_location", { search: window.location.search });
    }
    known = here;
  }

  window.addEventListener("popstate", drawWhatDashKnows);
  window.addEventListener("_dashprivate_pushstate", drawWhatDashKnows);

  var addressed = null; // the video that was last written into the address

  function keepVideoInAddress(state, shown, values) {
    var asked = new URLSearchParams(window.location.search).get("sample");
    var another = Boolean(asked) && asked !== shown.sample;
    if (another && asked !== addressed) return; // the address leads elsewhere
    addressed = shown.sample;
    if (another) markRow(shown.sample);
    var manifest = values.manifest;
    rewriteAddress({
      class: another ? null : new URLSearchParams(window.location.search).get("class"),
      sample: shown.sample,
      layer: state.layer,
      locked: state.locked ? state.locked.side + "-" + state.locked.frame : null,
      heads: state.heads.length < manifest.heads.length ? state.heads.join("-") : null,
      threshold: state.threshold || null,
      segment: manifest.segments.length > 1 ? state.segment : null,
      person: manifest.persons.length > 1 ? state.person : null,
    }, another);
  }

  function markRow(sample) {
    var grid = window.dash_ag_grid && window.dash_ag_grid.getApi("explore-grid");
    if (grid) grid.forEachNode(function (node) { node.setSelected(node.id === sample); });
  }

  function chooseRow(rows, shown) {
    if (!rows || !rows.length || rows[0].sample === shown.sample) {
      return window.dash_clientside.no_update;
    }
    return rows[0].sample;
  }

  /* The header's links lead to the same class on other pages. */
  function carryClass(shown) {
    return Array.prototype.slice.call(arguments, 1).map(function (href) {
      var address = new URL(href, window.location.href);
      if (shown.class) address.searchParams.set("class", shown.class);
      else address.searchParams.delete("class");
      return address.pathname + address.search;
    });
  }

  /* Another view of what has been fetched already: the maps and poses are the same. */
  function chooseView(view, values) {
    var still = window.dash_clientside.no_update;
    if (!view || values.manifest.view === view) return [still, still];
    rewriteAddress({ view: view === "head" ? null : view });
    var beside = view === "heat" || view === "explore" ? "none" : null;
    return [{ manifest: Object.assign({}, values.manifest, { view: view }) }, beside];
  }

  /* What is asked of the videos: the filters and order of the grid, the search and the switch. */
  function askVideos(request, find, confused, before) {
    before = before || {};
    var question = {
      find: find || "",
      confused: Boolean(confused),
      filter: (request ? request.filterModel : before.filter) || {},
      sort: (request ? request.sortModel : before.sort) || [],
    };
    rewriteAddress({
      find: question.find || null,
      confused: question.confused ? "1" : null,
      filter: Object.keys(question.filter).length ? JSON.stringify(question.filter) : null,
      sort: question.sort.length ? JSON.stringify(question.sort) : null,
    });
    if (question.find !== (before.find || "") || question.confused !== Boolean(before.confused)) {
      var grid = window.dash_ag_grid && window.dash_ag_grid.getApi("explore-grid");
      // After Dash has the new search, with which the grid's next request is answered.
      if (grid) setTimeout(function () { grid.purgeInfiniteCache(); }, 0);
    }
    return same(question, before) ? window.dash_clientside.no_update : question;
  }

  /* The lines that give the same are asked for only while they can be seen. */
  function askForLines(folded, maps, view, state) {
    if (folded !== "open") return window.dash_clientside.no_update;
    return { state: state, view: view };
  }

  /* On a phone not all links have room: the one to the page that is shown is among those seen. */
  function showLink() {
    setTimeout(function () {
      var link = document.querySelector("nav [data-active]");
      if (link) link.scrollIntoView({ inline: "center", block: "nearest" });
    }, 0);
  }

  function showRow(rows, state) {
    if (!rows || !rows.length) return window.dash_clientside.no_update;
    return Object.assign({}, state, { layer: rows[0].layer, head: rows[0].head });
  }

  function keepHeadInAddress(state, question) {
    rewriteAddress(Object.assign({}, question.query, { layer: state.layer, head: state.head }));
  }

  /* The maps of one layer's heads lie next to each other in the video's buffer (k, m, l, h, q, s):
   * the heat maps are a part of what the head view has fetched already. */
  function followHeadView(state, shown, values, buffers, mapValues, mapBuffers) {
    keepVideoInAddress(state, shown, values);
    var head = values.manifest;
    var shape = head.maps.shape;
    var place = [
      head.segments.indexOf(state.segment),
      head.persons.indexOf(state.person),
      head.layers.indexOf(state.layer),
    ];
    var index = (place[0] * shape[1] + place[1]) * shape[2] + place[2];
    var length = 2 * shape[3] * shape[4] * shape[5];
    var maps = { url: buffers.maps, offset: index * length, length: length };
    var manifest = Object.assign({}, mapValues.manifest, {
      titles: head.heads.map(function (h) { return "Head " + h; }),
      kinds: head.heads.map(function () { return "seq"; }),
      maps: { dtype: head.maps.dtype, shape: shape.slice(3) },
      labels: head.labels ? head.labels[place[0]] : null,
    });
    var title = "Layer " + state.layer + ", each head";
    if (head.segments.length > 1) title += ", segment " + state.segment;
    if (head.persons.length > 1) title += ", person " + state.person;
    var unchanged = mapBuffers && same(mapBuffers.maps, maps);
    var still = window.dash_clientside.no_update;
    return [
      unchanged ? still : { manifest: manifest },
      unchanged ? still : { maps: maps },
      { layer: state.layer, locked: state.locked },
      title,
    ];
  }

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.tssan_dash = {
    goTo: goTo,
    askVideos: askVideos,
    chooseRow: chooseRow,
    carryClass: carryClass,
    chooseView: chooseView,
    askForLines: askForLines,
    showLink: showLink,
    showRow: showRow,
    keepHeadInAddress: keepHeadInAddress,
    followHeadView: followHeadView,
  };

  /* 3 ---------------------------------------------------------------------------------------- */

  function squeeze(text) {
    return text.normalize("NFKD").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "");
  }

  window.dashMantineFunctions = window.dashMantineFunctions || {};
  window.dashMantineFunctions.tssan_dash = {
    byAlias: function (given, settings) {
      var wanted = squeeze(given.search);
      return given.options.filter(function (option) {
        return [option.label].concat(settings.words[option.value] || []).some(function (word) {
          return squeeze(word).indexOf(wanted) >= 0;
        });
      });
    },
  };

  /* 4 ---------------------------------------------------------------------------------------- */

  function passTheme() {
    var scheme = document.documentElement.dataset.mantineColorScheme;
    if (scheme) document.body.dataset.agThemeMode = scheme;
  }

  new MutationObserver(passTheme).observe(document.documentElement, {
    attributes: true, attributeFilter: ["data-mantine-color-scheme"],
  });
})();
