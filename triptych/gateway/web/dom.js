// What every part of the page needs of the document.

export const $ = (id) => document.getElementById(id);

/** A copy of a template's only element. */
export function fromTemplate(id) {
  const element = $(id).content.cloneNode(true).firstElementChild;
  showIcons(element);
  return element;
}

/** Draw the icons of the buttons in `root`; a button with an icon alone says its name as a title. */
export function showIcons(root) {
  for (const button of root.querySelectorAll("[data-icon]:empty")) {
    button.innerHTML = `<svg aria-hidden="true"><use href="web/icons.svg#${button.dataset.icon}"/></svg>`;
    button.title ||= button.getAttribute("aria-label") ?? "";
  }
}

/** The element in `root` that does something, by the name of what it does. */
export function doing(root, name) {
  return root.querySelector(`[data-does=${name}]`);
}

/** Put a value into a field as if it were typed. */
export function type(field, value) {
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

/** Tell a screen reader. */
export function say(text) {
  $("status").textContent = text;
}

/** Show a line above the pictures with up to two things to do about it: [label, function] each. */
export function notice(text, ...choices) {
  $("notice-said").textContent = text;
  for (const [button, choice] of [[$("notice-do"), choices[0]], [$("notice-not"), choices[1]]]) {
    button.hidden = !choice;
    button.textContent = choice?.[0] ?? "";
    button.onclick = () => {
      $("notice").hidden = true;
      choice[1]();
    };
  }
  $("notice").hidden = false;
  say(text);
}

/** A dialog closes at a click beside it and at its cross. */
export function closable(dialog) {
  dialog.addEventListener("click", (event) => {
    const { target, clientX: x, clientY: y } = event;
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    const isBeside = target === dialog && (x < left || x > right || y < top || y > bottom);
    if (isBeside || target.closest("[data-does=close]")) dialog.close();
  });
}
