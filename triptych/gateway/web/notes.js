// Small things that stay in this browser, or in this tab alone: texts, lists, the form. A name of its own for each,
// since other programs' pages had this address, and a browser that keeps nothing is one where nothing was noted.

const nameOf = (name) => `triptych ${name}`;

function room(inTab) {
  return inTab ? sessionStorage : localStorage;
}

/** What was noted under a name; `otherwise` without it. */
export function noted(name, otherwise, { inTab = false } = {}) {
  try {
    return JSON.parse(room(inTab).getItem(nameOf(name))) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** Note a value; false where it is gone with the page. */
export function note(name, value, { inTab = false } = {}) {
  try {
    room(inTab).setItem(nameOf(name), JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

export function forgetNote(name) {
  try {
    localStorage.removeItem(nameOf(name));
  } catch {
    // nothing was noted
  }
}
