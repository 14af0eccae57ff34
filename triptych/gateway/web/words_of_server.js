// What the server says beside a picture, in Chinese: its warnings, with what they name in braces.

export const SERVER_ZH = {
  "not taken from the picture: {settings}": "未从图片中读取：{settings}",
  "scheduler: the picture's sampler is not one of those here": "采样器：这里没有图片所用的采样器",
  "second_pass: not taken: the picture was drawn once more at {size}": "未读取第二遍绘制：图片曾以 {size} 再画一遍",
  "strength: this picture began from another one, which its file does not hold":
    "重绘强度：这张图片由另一张图片画成，而文件中没有那张图片",
  "the prompts are longer than this file can carry, and stand here cut to {most} letters":
    "提示词超出了文件的容量，这里只保留 {most} 个字符",
  "{field} is longer than {length} tokens; cut off: {part}": "{field} 超过 {length} 个词元，截去了：{part}",
  "{field}: the bracket after {part} is read as a character": "{field}：{part} 之后的括号按普通字符读取",
  "{field}: {parts} is never closed and weighs all that follows": "{field}：{parts} 没有闭合，其后的全部内容都被加权",
  "{field}: {parts} is read as words: no LoRA, no weights": "{field}：{parts} 按普通文字读取：不是 LoRA，也不是权重",
  "{field}: {parts} is read as words": "{field}：{parts} 按普通文字读取",
  "{name} is not used at guidance_scale {scale}": "引导强度为 {scale} 时不使用 {name}",
  "{name} is not used by this model": "这个模型不使用 {name}",
  "{name} is not used where no step is between guidance_start and guidance_stop":
    "guidance_start 与 guidance_stop 之间没有任何一步，因此不使用 {name}",
};
